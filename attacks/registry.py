"""Every named attack, in display order. `ATTACKS` names configurations (pgd-20); a module (pgd) is the algorithm."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

from torch import Tensor

from attacks import apgd, fab, foolbox_adapter, mi_fgsm, pgd, pyautoattack_adapter, square
from attacks.errors import InputError
from attacks.names import lookup

ANY_NORM = ("Linf", "L2")


@dataclass(frozen=True)
class Recurrence:
    """An attack that the loop advances: `init(x, y, threat, draws) -> state`, `step(oracle, state) -> state`."""

    init: Callable[..., Any]
    step: Callable[..., Any]


@dataclass(frozen=True)
class Proposer:
    """A third-party attack, a batch in and a batch out: `propose(classifier, x, y, threat, *, seed) -> x_adv`.

    Its numbers depend on the batch that it is given, and on the version of the library that it comes from.
    """

    propose: Callable[..., Tensor]
    library: str


@dataclass(frozen=True)
class Ensemble:
    """Attacks that an image walks through until it is broken.

    Args:
        members: in order, the cheap ones first.
        scouts: short attacks that come before them. An image that none of them brought near is left standing, unless
            one without gradients came nearer to it than those with.
        doubt: near is a lead of the true class below this, relative to the logits' spread (as in the DLR loss).
    """

    members: Sequence["AttackSpec"]
    scouts: Sequence["AttackSpec"] = ()
    doubt: float = float("inf")

    def __post_init__(self) -> None:
        if not all(isinstance(scout.method, Recurrence) for scout in self.scouts):
            raise InputError("scouts must be recurrences: of others it is not known how near they came")


@dataclass(frozen=True)
class AttackSpec:
    """A named attack configuration.

    Args:
        name: as on the command line and in the tables.
        algorithm: the algorithm's name; with version, parameters, steps and restarts it identifies the numbers.
        method: the algorithm.
        params: keyword arguments of the method's functions.
        steps: of one restart; for a third-party attack what its progress bar weighs.
        restarts: independent starts of each image.
        reads_last: whether the last iterate is read beside any iterate (as the papers' tables do).
        norms: the threat models that it is defined for.
        targeted: each restart aims at another class, so there are no more restarts than wrong classes.
        tolerates_rounding: whether searching in bfloat16 is enough; else what comes near is searched again in float32.
        version: raised whenever the attack's numbers may change.
        source: the paper.

    Raises: InputError for a parameter that the method does not take, or lacks.
    """

    name: str
    algorithm: str
    method: Recurrence | Proposer | Ensemble
    params: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 1
    restarts: int = 1
    reads_last: bool = True
    norms: Sequence[str] = ANY_NORM
    targeted: bool = False
    tolerates_rounding: bool = True
    version: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        bound = {**self.init_params, **self.step_params, **self.propose_params}
        surplus = set(self.params) - set(bound)
        missing = {name for function in self._functions() for name in _required(function)} - set(self.params)
        if surplus or missing:
            raise InputError(f"attack {self.name}: unknown parameters {sorted(surplus)}, missing {sorted(missing)}")
        if self.steps < 1 or self.restarts < 1:
            raise InputError(
                f"attack {self.name}: steps and restarts must be at least 1, got {self.steps}, {self.restarts}"
            )

    @property
    def init_params(self) -> dict[str, Any]:
        return _accepted(self.method.init, self.params) if isinstance(self.method, Recurrence) else {}

    @property
    def step_params(self) -> dict[str, Any]:
        return _accepted(self.method.step, self.params) if isinstance(self.method, Recurrence) else {}

    @property
    def propose_params(self) -> dict[str, Any]:
        return _accepted(self.method.propose, self.params) if isinstance(self.method, Proposer) else {}

    def with_settings(self, *, steps: int | None = None, restarts: int | None = None, **params: object) -> "AttackSpec":
        """The same attack by another paper's settings."""
        return replace(
            self,
            steps=self.steps if steps is None else steps,
            restarts=self.restarts if restarts is None else restarts,
            params={**self.params, **params},
        )

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the attack's numbers; its name does not."""
        own = {"algorithm": self.algorithm, "version": self.version, "params": dict(sorted(self.params.items()))}
        if isinstance(self.method, Ensemble):
            scouting = {"scouts": [s.identity for s in self.method.scouts], "doubt": self.method.doubt}
            members = {"members": [member.identity for member in self.method.members]}
            return {**own, **members, **(scouting if self.method.scouts else {})}
        if isinstance(self.method, Proposer):
            return {**own, "library": f"{self.method.library} {metadata.version(self.method.library)}"}
        return {**own, "steps": self.steps, "restarts": self.restarts, "reads_last": self.reads_last}

    @property
    def weight(self) -> int:
        """Steps of one image, at most; for progress bars."""
        if isinstance(self.method, Ensemble):
            return sum(member.weight for member in (*self.method.scouts, *self.method.members))
        return self.steps * self.restarts

    def _functions(self) -> Sequence[Callable[..., Any]]:
        if isinstance(self.method, Recurrence):
            return self.method.init, self.method.step
        return (self.method.propose,) if isinstance(self.method, Proposer) else ()


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, but for `seed`, which the caller gives."""
    parameters = inspect.signature(function).parameters.items()
    return {name: p for name, p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and name != "seed"}


def _required(function: Callable[..., Any]) -> set[str]:
    return {name for name, p in _keywords(function).items() if p.default is inspect.Parameter.empty}


def _accepted(function: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in _keywords(function) if name in params}


PGD = Recurrence(pgd.init, pgd.step)
MI_FGSM = Recurrence(mi_fgsm.init, mi_fgsm.step)

MADRY = "Madry et al., arXiv:1706.06083"


def _pgd(name: str, steps: int, **params: object) -> AttackSpec:
    defaults: dict[str, object] = {"start": "uniform", "loss": "cross-entropy", "rel_step_size": 0.1}
    return AttackSpec(name, "pgd", PGD, {**defaults, **params}, steps=steps, source=MADRY)


def _table(specs: Sequence[AttackSpec]) -> dict[str, AttackSpec]:
    table: dict[str, AttackSpec] = {}
    for spec in specs:
        if spec.name in table:
            raise InputError(f"attack {spec.name!r} is registered twice")
        table[spec.name] = spec
    return table


AUTOATTACK = "Croce and Hein, arXiv:2003.01690"


def _apgd(name: str, loss: str, *, targeted: bool = False) -> AttackSpec:
    params = {"loss": loss, "iterations": 100, "rho": 0.75, "momentum": 0.75, "eot": 1}
    method = Recurrence(apgd.init, apgd.step)
    restarts = TARGETS if targeted else 1
    return AttackSpec(
        name, "apgd", method, params, 100, restarts, reads_last=False, targeted=targeted, source=AUTOATTACK
    )


def _fab(name: str, *, targeted: bool, restarts: int) -> AttackSpec:
    params = {"targeted": targeted, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
    method, source = Recurrence(fab.init, fab.step), "Croce and Hein, arXiv:1907.02044"
    return AttackSpec(name, "fab", method, params, 100, restarts, reads_last=False, targeted=targeted, source=source)


TARGETS = 9
AUTOATTACK_MEMBERS: Mapping[str, AttackSpec] = {
    spec.name: spec
    for spec in (
        _apgd("apgd-ce", "cross-entropy"),
        _apgd("apgd-dlr", "dlr"),
        _apgd("apgd-t", "dlr-targeted", targeted=True),
        _fab("fab", targeted=False, restarts=5),
        _fab("fab-t", targeted=True, restarts=TARGETS),
        AttackSpec(
            "square",
            "square",
            Recurrence(square.init, square.step),
            {"queries_per_step": 50, "p_init": 0.8},
            steps=100,
            reads_last=False,
            tolerates_rounding=False,
            source="Andriushchenko et al., arXiv:1912.00049",
        ),
    )
}


def _reference(name: str, passes: int, params: Mapping[str, object]) -> AttackSpec:
    """The reference implementation, whole or one member of it."""
    return AttackSpec(
        name,
        "pyautoattack-standard",
        Proposer(pyautoattack_adapter.autoattack, "pyautoattack"),
        {"version": "standard", **params},
        steps=passes,
        reads_last=False,
        source=AUTOATTACK,
    )


ATTACKS: Mapping[str, AttackSpec] = _table(
    [
        replace(_pgd("fgsm", 1, start="none", rel_step_size=1.0), source="Goodfellow et al., arXiv:1412.6572"),
        _pgd("pgd-20", 20),
        _pgd("pgd-40", 40),
        _pgd("pgd-100", 100),
        replace(_pgd("pgd-20x10", 20), restarts=10),
        replace(_pgd("cw-linf", 30, loss="margin"), norms=("Linf",), source="Carlini and Wagner, arXiv:1608.04644"),
        AttackSpec(
            "mi-fgsm",
            "mi-fgsm",
            MI_FGSM,
            {"rel_step_size": 0.1, "momentum": 1.0},
            steps=10,
            source="Dong et al., arXiv:1710.06081",
        ),
        AttackSpec(
            "foolbox-deepfool",
            "foolbox-deepfool",
            Proposer(foolbox_adapter.deepfool, "foolbox"),
            {"steps": 50, "candidates": 10, "overshoot": 0.02},
            steps=500,
            reads_last=False,
            source="Moosavi-Dezfooli et al., arXiv:1511.04599",
        ),
        AttackSpec(
            "foolbox-cw-l2",
            "foolbox-cw-l2",
            Proposer(foolbox_adapter.carlini_wagner_l2, "foolbox"),
            {"binary_search_steps": 5, "steps": 100, "stepsize": 0.05, "initial_const": 0.01},
            steps=500,
            reads_last=False,
            source="Carlini and Wagner, arXiv:1608.04644",
        ),
        *AUTOATTACK_MEMBERS.values(),
        AttackSpec(
            "autoattack",
            "autoattack-standard",
            Ensemble([AUTOATTACK_MEMBERS[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square")]),
            reads_last=False,
            source=AUTOATTACK,
        ),
        AttackSpec(
            "autoattack-fast",
            "autoattack-fast",
            Ensemble(
                [
                    replace(AUTOATTACK_MEMBERS["apgd-ce"], restarts=3),
                    replace(AUTOATTACK_MEMBERS["apgd-dlr"], restarts=2),
                    replace(AUTOATTACK_MEMBERS["apgd-t"], restarts=3),
                    replace(AUTOATTACK_MEMBERS["fab-t"], restarts=3),
                    replace(AUTOATTACK_MEMBERS["square"], steps=16),
                ],
                scouts=[
                    AUTOATTACK_MEMBERS["apgd-ce"].with_settings(steps=20, iterations=20),
                    AUTOATTACK_MEMBERS["apgd-t"].with_settings(steps=10, iterations=10),
                    AUTOATTACK_MEMBERS["square"].with_settings(steps=2),
                ],
                doubt=0.17,
            ),
            reads_last=False,
            source=f"members: {AUTOATTACK}; scouts: this project",
        ),
        AttackSpec(
            "autoattack-brief",
            "autoattack-brief",
            Ensemble(
                [
                    AUTOATTACK_MEMBERS["apgd-ce"].with_settings(steps=20, iterations=20),
                    AUTOATTACK_MEMBERS["apgd-t"].with_settings(steps=20, iterations=20, restarts=3),
                    AUTOATTACK_MEMBERS["square"].with_settings(steps=2),
                ]
            ),
            reads_last=False,
            source=f"members: {AUTOATTACK}; their length: this project",
        ),
        AttackSpec(
            "autoattack-plus",
            "autoattack-plus",
            Ensemble(
                [
                    replace(AUTOATTACK_MEMBERS["apgd-ce"], restarts=5),
                    replace(AUTOATTACK_MEMBERS["apgd-dlr"], restarts=5),
                    *(AUTOATTACK_MEMBERS[name] for name in ("fab", "square", "apgd-t", "fab-t")),
                ]
            ),
            reads_last=False,
            source=AUTOATTACK,
        ),
        AttackSpec(
            "autoattack-rand",
            "autoattack-rand",
            Ensemble([AUTOATTACK_MEMBERS[name].with_settings(eot=20) for name in ("apgd-ce", "apgd-dlr")]),
            reads_last=False,
            source=AUTOATTACK,
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
    ]
)


def attack_spec(name: str) -> AttackSpec:
    """The attack of that name. Raises: InputError that names the nearest match."""
    return lookup(name, ATTACKS, "attack")
