"""Every named attack, in display order. `ATTACKS` names configurations (pgd-20); a module (pgd) is the algorithm."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from attacks import (
    cw_linf,
    foolbox_adapter,
    lbfgs,
    mi_fgsm,
    nes,
    pgd,
    random_points,
    rays,
    sparse_rs,
    spatial_search,
    spsa,
)
from attacks.autoattack import AUTOATTACK_L1, AUTOATTACK_MEMBERS, ENSEMBLES, L1_MEMBERS, REFERENCES
from attacks.errors import InputError
from attacks.losses import LOSSES
from attacks.names import by_name, lookup
from attacks.spatial import SPATIAL
from attacks.spec import AttackSpec, Ensemble, Recurrence, ThirdParty

PGD = Recurrence(pgd.init, pgd.step)
MI_FGSM = Recurrence(mi_fgsm.init, mi_fgsm.step)

MADRY = "Madry et al., arXiv:1706.06083"


def _pgd(name: str, steps: int, **params: object) -> AttackSpec:
    defaults: dict[str, object] = {"start": "uniform", "loss": "cross-entropy", "rel_step_size": 0.1}
    return AttackSpec(
        name, algorithm="pgd", method=PGD, params={**defaults, **params}, steps=steps, version=2, paper=MADRY
    )


SGM = "Wu et al., arXiv:2002.05990"
SKIP = 0.2
"""The paper's gamma for ResNets."""


def _momentum(name: str, *, paper: str, **params: object) -> AttackSpec:
    """MI-FGSM by its paper's settings (epsilon / T), or one of its family."""
    defaults: dict[str, object] = {"rel_step_size": 0.1, "momentum": 1.0}
    return AttackSpec(
        name, algorithm="mi-fgsm", method=MI_FGSM, params={**defaults, **params}, steps=10, version=2, paper=paper
    )


def _spsa(name: str, steps: int, queries_per_step: int, rel_step_size: float) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="spsa",
        method=Recurrence(spsa.init, spsa.step),
        params={"queries_per_step": queries_per_step, "width": 0.01, "rel_step_size": rel_step_size},
        steps=steps,
        reads_last=False,
        tolerates_rounding=False,
        asks_for="logits",
        version=2,
        paper="Uesato et al., arXiv:1802.05666",
    )


def _nes(name: str, queries: int) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="nes",
        method=Recurrence(nes.init, nes.step),
        params={"queries_per_step": 50, "width": 0.001, "rel_step_size": 0.2, "momentum": 0.9},
        steps=queries // 50,
        reads_last=False,
        tolerates_rounding=False,
        asks_for="logits",
        paper="Ilyas et al., arXiv:1804.08598",
    )


def _square(name: str, queries: int) -> AttackSpec:
    square = AUTOATTACK_MEMBERS["square"]
    return replace(square, name=name, steps=queries // square.params["queries_per_step"])


def _rays(name: str, queries: int) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="rays",
        method=Recurrence(rays.init, rays.step),
        params={"tolerance": 1e-3},
        steps=queries,
        norms=("Linf",),
        reads_last=False,
        tolerates_rounding=False,
        asks_for="labels",
        version=2,
        paper="Chen and Gu, arXiv:2006.12792",
    )


def _foolbox_labels(name: str, queries: int, *, algorithm: str) -> AttackSpec:
    """An attack of foolbox by labels alone."""
    propose, paper = FOOLBOX_LABELS[algorithm]
    return AttackSpec(
        name,
        algorithm=algorithm,
        method=ThirdParty(propose, "foolbox"),
        params={"queries": queries},
        steps=queries,
        reads_last=False,
        asks_for="labels",
        version=3,
        paper=paper,
    )


def _spatial(name: str, step: Callable[..., object], steps: int, **params: object) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm=f"spatial-{step.__name__.removesuffix('_step')}",
        method=Recurrence(spatial_search.init, step),
        params=params,
        steps=steps,
        norms=(SPATIAL,),
        reads_last=False,
        tolerates_rounding=False,
        asks_for="logits",
        paper="Engstrom et al., arXiv:1712.02779",
    )


FOOLBOX_LABELS: Mapping[str, tuple[Callable[..., Tensor], str]] = {
    "foolbox-boundary": (foolbox_adapter.boundary, "Brendel et al., arXiv:1712.04248"),
    "foolbox-hopskipjump": (foolbox_adapter.hop_skip_jump, "Chen et al., arXiv:1904.02144"),
}


ATTACKS: Mapping[str, AttackSpec] = by_name(
    (
        replace(_pgd("fgsm", 1, start="none", rel_step_size=1.0), paper="Goodfellow et al., arXiv:1412.6572"),
        _pgd("pgd-20", 20),
        _pgd("pgd-40", 40),
        _pgd("pgd-100", 100),
        _pgd("pgd-40-x10", 40, loss="cross-entropy-x10"),
        replace(_pgd("pgd-20x10", 20), restarts=10),
        replace(_pgd("cw-linf", 30, loss="margin"), norms=("Linf",), paper="Carlini and Wagner, arXiv:1608.04644"),
        _momentum("mi-fgsm", paper="Dong et al., arXiv:1710.06081"),
        replace(_momentum("ni-fgsm", nesterov=True, paper="Lin et al., arXiv:1908.06281"), norms=("Linf",)),
        _momentum("di-fgsm", diversity=0.5, paper="Xie et al., arXiv:1803.06978"),
        _momentum("ti-fgsm", kernel=5, paper="Dong et al., arXiv:1904.02884"),
        replace(_momentum("vmi-fgsm", variance_points=20, paper="Wang and He, arXiv:2103.15571"), norms=("Linf",)),
        replace(_pgd("sgm", 10, start="none", rel_step_size=0.125), skip_gradient=SKIP, paper=SGM),
        replace(_momentum("mi-sgm", paper=SGM), skip_gradient=SKIP),
        AttackSpec(
            "foolbox-deepfool",
            algorithm="foolbox-deepfool",
            method=ThirdParty(foolbox_adapter.deepfool, "foolbox"),
            params={"steps": 50, "candidates": 10, "overshoot": 0.02},
            steps=500,
            reads_last=False,
            paper="Moosavi-Dezfooli et al., arXiv:1511.04599",
        ),
        AttackSpec(
            "foolbox-cw-l2",
            algorithm="foolbox-cw-l2",
            method=ThirdParty(foolbox_adapter.carlini_wagner_l2, "foolbox"),
            params={"binary_search_steps": 5, "steps": 100, "stepsize": 0.05, "initial_const": 0.01},
            steps=500,
            reads_last=False,
            paper="Carlini and Wagner, arXiv:1608.04644",
        ),
        AttackSpec(
            "lbfgs",
            algorithm="lbfgs",
            method=ThirdParty(lbfgs.propose, "scipy"),
            params={"steps": 50, "searches": 15, "initial_const": 0.01},
            steps=500,
            reads_last=False,
            paper="Szegedy et al., arXiv:1312.6199",
        ),
        AttackSpec(
            "cw-linf-search",
            algorithm="cw-linf-search",
            method=Recurrence(cw_linf.init, cw_linf.step),
            params={"initial_const": 0.01, "largest_const": 20.0, "rate": 0.005, "tries": 100, "shrink": 0.9},
            steps=1000,
            norms=("Linf",),
            reads_last=False,
            paper="Carlini and Wagner, arXiv:1608.04644",
        ),
        *(_foolbox_labels(name, 2000, algorithm=name) for name in FOOLBOX_LABELS),
        *AUTOATTACK_MEMBERS.values(),
        _square("square-500", 500),
        _spsa("spsa", 100, 257, 0.05),
        _spsa("spsa-500", 10, 50, 0.25),
        _nes("nes", 2000),
        _rays("rays", 2000),
        AttackSpec(
            "random-points",
            algorithm="random-points",
            method=Recurrence(random_points.init, random_points.step),
            params={"queries_per_step": 100},
            steps=100,
            reads_last=False,
            tolerates_rounding=False,
            asks_for="logits",
            paper="Carlini et al., arXiv:1902.06705",
        ),
        _spatial("spatial-grid", spatial_search.grid_step, 11, shifts=5),
        _spatial("spatial-grid-31", spatial_search.grid_step, 31, shifts=5),
        _spatial("spatial-random-10", spatial_search.random_step, 1, queries_per_step=10),
        _spatial("spatial-random-1000", spatial_search.random_step, 100, queries_per_step=10),
        *L1_MEMBERS,
        AttackSpec(
            "sparse-rs",
            algorithm="sparse-rs",
            method=Recurrence(sparse_rs.init, sparse_rs.step),
            params={"queries_per_step": 5, "alpha_init": 0.3},
            steps=1000,
            norms=("L0",),
            reads_last=False,
            tolerates_rounding=False,
            asks_for="logits",
            version=2,
            paper="Croce et al., arXiv:2006.12834",
        ),
        *ENSEMBLES,
        AUTOATTACK_L1,
        *REFERENCES,
    ),
    "attack",
)


@dataclass(frozen=True)
class Family:
    """Attacks NAME-N that differ in N alone.

    Args:
        make: the name and N to the attack.
        unit: what N is a multiple of.
        of: what N counts.
    """

    make: Callable[[str, int], AttackSpec]
    unit: int = 1
    of: str = "queries"


FAMILIES: Mapping[str, Family] = {
    "pgd": Family(_pgd, of="steps"),
    "square": Family(_square, unit=50),
    "spsa": Family(lambda name, queries: _spsa(name, queries // 50, 50, 0.25), unit=50),
    "nes": Family(_nes, unit=50),
    "rays": Family(_rays),
    **{name: Family(partial(_foolbox_labels, algorithm=name)) for name in FOOLBOX_LABELS},
}
MOST = 1_000_000
"""The largest N of an attack NAME-N."""


def attack_spec(name: str) -> AttackSpec:
    """The attack of that name; of a family any NAME-N; NAME-LOSS climbs that loss.

    Raises: InputError that names the nearest match.
    """
    family, length = _family(name)
    if name in ATTACKS:
        return ATTACKS[name]
    if climbing := by_loss(name, known_attack):
        return climbing
    if family is None:
        return lookup(name, ATTACKS, "attack")
    if length % family.unit or not 0 < length <= MOST:
        multiple = f", a multiple of {family.unit}" if family.unit > 1 else ""
        raise InputError(
            f"attack {name}: expected a number of {family.of} from {family.unit} to {MOST}{multiple}, got {length}; "
            f"use {name.rpartition('-')[0]}-{_nearest(length, family.unit)}"
        )
    return family.make(name, length)


def spec_of(attack: object) -> AttackSpec:
    """The attack of a name, or a spec as it is. Raises: InputError for anything else."""
    if isinstance(attack, str):
        return attack_spec(attack)
    if isinstance(attack, AttackSpec):
        return attack
    raise InputError(f"expected an attack's name or an AttackSpec, got {type(attack).__name__}; use pgd-40, say")


def known_attack(name: str) -> AttackSpec | None:
    """The attack of that name; None where there is none, as of one that a caller made."""
    try:
        return attack_spec(name)
    except InputError:
        return None


def by_loss(name: str, find: Callable[[str], AttackSpec | None]) -> AttackSpec | None:
    """Of a name NAME-LOSS the attack NAME that climbs the loss; None where it ends with no loss, or NAME climbs none.

    Args:
        find: the attack of a name, if there is one.
    """
    endings = [loss for loss in LOSSES if name.endswith(f"-{loss}")]
    if not endings:
        return None
    loss = max(endings, key=len)
    own = find(name.removesuffix(f"-{loss}"))
    return own.with_loss(loss) if own is not None and own.can_climb(loss) else None


def query_budget(spec: AttackSpec) -> int | None:
    """How many answers of the model an attack without gradients may take of an image; None where that is not known."""
    params = spec.params
    if not spec.is_black_box or isinstance(spec.method, Ensemble):
        return None
    if isinstance(spec.method, ThirdParty):
        return params.get("queries")
    return spec.steps * int(params.get("queries_per_step", 1))


def _family(name: str) -> tuple[Family | None, int]:
    family, _, length = name.rpartition("-")
    return (FAMILIES[family], int(length)) if family in FAMILIES and re.fullmatch("[0-9]{1,9}", length) else (None, 0)


def _nearest(length: int, unit: int) -> int:
    return min(max(round(length / unit), 1) * unit, MOST)
