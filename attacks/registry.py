"""Every named attack, in display order. `ATTACKS` names configurations (pgd-20); a module (pgd) is the algorithm."""

from collections.abc import Mapping
from dataclasses import replace

from attacks import apgd, fab, foolbox_adapter, mi_fgsm, pgd, pyautoattack_adapter, random_points, spsa, square
from attacks.losses import TARGETED_LOSSES
from attacks.names import by_name, lookup
from attacks.spec import AttackSpec, EarlyStopping, Ensemble, Recurrence, ThirdParty

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


AUTOATTACK = "Croce and Hein, arXiv:2003.01690"


def _apgd(name: str, loss: str) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="apgd",
        method=Recurrence(apgd.init, apgd.step),
        params={"loss": loss, "rho": 0.75, "momentum": 0.75},
        steps=100,
        restarts=TARGETS if loss in TARGETED_LOSSES else 1,
        reads_last=False,
        version=2,
        paper=AUTOATTACK,
    )


def _fab(name: str, *, targeted: bool, restarts: int) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="fab",
        method=Recurrence(fab.init, fab.step),
        params={"targeted": targeted, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
        steps=100,
        restarts=restarts,
        reads_last=False,
        version=2,
        paper="Croce and Hein, arXiv:1907.02044",
    )


def _spsa(name: str, steps: int, pairs_per_step: int, rel_step_size: float) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="spsa",
        method=Recurrence(spsa.init, spsa.step),
        params={"pairs_per_step": pairs_per_step, "width": 0.01, "rel_step_size": rel_step_size},
        steps=steps,
        reads_last=False,
        tolerates_rounding=False,
        is_black_box=True,
        paper="Uesato et al., arXiv:1802.05666",
    )


TARGETS = 9
AUTOATTACK_MEMBERS: Mapping[str, AttackSpec] = by_name(
    (
        _apgd("apgd-ce", "cross-entropy"),
        _apgd("apgd-dlr", "dlr"),
        _apgd("apgd-t", "dlr-targeted"),
        _fab("fab", targeted=False, restarts=5),
        _fab("fab-t", targeted=True, restarts=TARGETS),
        AttackSpec(
            "square",
            algorithm="square",
            method=Recurrence(square.init, square.step),
            params={"queries_per_step": 50, "p_init": 0.8},
            steps=100,
            reads_last=False,
            tolerates_rounding=False,
            is_black_box=True,
            version=3,
            paper="Andriushchenko et al., arXiv:1912.00049",
        ),
    ),
    "member of AutoAttack",
)


def _reference(name: str, passes: int, params: Mapping[str, object]) -> AttackSpec:
    """The reference implementation, whole or one member of it."""
    return AttackSpec(
        name,
        algorithm="pyautoattack-standard",
        method=ThirdParty(pyautoattack_adapter.autoattack, "pyautoattack"),
        params={"version": "standard", **params},
        steps=passes,
        reads_last=False,
        is_black_box=params.get("members") == ("square",),
        paper=AUTOATTACK,
    )


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
        _momentum("ni-fgsm", nesterov=True, paper="Lin et al., arXiv:1908.06281"),
        _momentum("di-fgsm", diversity=0.5, paper="Xie et al., arXiv:1803.06978"),
        _momentum("ti-fgsm", kernel=5, paper="Dong et al., arXiv:1904.02884"),
        _momentum("vmi-fgsm", variance_points=20, paper="Wang and He, arXiv:2103.15571"),
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
        *AUTOATTACK_MEMBERS.values(),
        replace(AUTOATTACK_MEMBERS["square"], name="square-500", steps=10),
        _spsa("spsa", 100, 128, 0.05),
        _spsa("spsa-500", 10, 25, 0.25),
        AttackSpec(
            "random-points",
            algorithm="random-points",
            method=Recurrence(random_points.init, random_points.step),
            params={"queries_per_step": 100},
            steps=100,
            reads_last=False,
            tolerates_rounding=False,
            is_black_box=True,
            paper="Carlini et al., arXiv:1902.06705",
        ),
        AttackSpec(
            "autoattack",
            algorithm="autoattack-standard",
            method=Ensemble([AUTOATTACK_MEMBERS[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square")]),
            reads_last=False,
            version=2,
            paper=AUTOATTACK,
        ),
        AttackSpec(
            "autoattack-fast",
            algorithm="autoattack-fast",
            method=Ensemble(
                [
                    replace(AUTOATTACK_MEMBERS["apgd-ce"], restarts=3),
                    replace(AUTOATTACK_MEMBERS["apgd-dlr"], restarts=2),
                    replace(AUTOATTACK_MEMBERS["apgd-t"], restarts=3),
                    replace(AUTOATTACK_MEMBERS["fab-t"], restarts=3),
                    replace(AUTOATTACK_MEMBERS["square"], steps=16),
                ],
                screening=[
                    AUTOATTACK_MEMBERS["apgd-ce"].with_settings(steps=20),
                    AUTOATTACK_MEMBERS["apgd-t"].with_settings(steps=10),
                    replace(
                        AUTOATTACK_MEMBERS["square"],
                        early_stopping=EarlyStopping(checks=(2, 8, 20, 50), least_decrease=0.2),
                    ),
                ],
                screening_margin=0.1,
            ),
            reads_last=False,
            version=3,
            paper=f"members: {AUTOATTACK}; screening: this project",
        ),
        AttackSpec(
            "autoattack-brief",
            algorithm="autoattack-brief",
            method=Ensemble(
                [
                    AUTOATTACK_MEMBERS["apgd-ce"].with_settings(steps=20),
                    AUTOATTACK_MEMBERS["apgd-t"].with_settings(steps=20, restarts=3),
                    AUTOATTACK_MEMBERS["square"].with_settings(steps=2),
                ]
            ),
            reads_last=False,
            version=2,
            paper=f"members: {AUTOATTACK}; their length: this project",
        ),
        AttackSpec(
            "autoattack-plus",
            algorithm="autoattack-plus",
            method=Ensemble(
                [
                    replace(AUTOATTACK_MEMBERS["apgd-ce"], restarts=5),
                    replace(AUTOATTACK_MEMBERS["apgd-dlr"], restarts=5),
                    *(AUTOATTACK_MEMBERS[name] for name in ("fab", "square", "apgd-t", "fab-t")),
                ]
            ),
            reads_last=False,
            version=2,
            paper=AUTOATTACK,
        ),
        AttackSpec(
            "autoattack-rand",
            algorithm="autoattack-rand",
            method=Ensemble([AUTOATTACK_MEMBERS[name] for name in ("apgd-ce", "apgd-dlr")]),
            reads_last=False,
            eot=20,
            version=2,
            paper=AUTOATTACK,
        ),
        _reference("autoattack-reference", 8000, {}),
        *(
            _reference(f"reference-{member}", steps, {"members": (member,)})
            for member, steps in {
                "apgd-ce": 100,
                "apgd-dlr": 100,
                "apgd-t": 900,
                "fab-t": 1800,
                "square": 5000,
            }.items()
        ),
    ),
    "attack",
)


def attack_spec(name: str) -> AttackSpec:
    """The attack of that name. Raises: InputError that names the nearest match."""
    return lookup(name, ATTACKS, "attack")
