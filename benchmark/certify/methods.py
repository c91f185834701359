"""The table of methods that certify, from cheap to complete."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from attacks.errors import InputError
from attacks.names import by_name, lookup
from attacks.threat_model import ThreatModel
from benchmark.certify.complete import by_branches, by_program
from benchmark.certify.proofs import (
    Prepare,
    Prove,
    Settings,
    by_chords,
    by_crown,
    by_intervals,
    by_smoothing,
    with_bounds,
    with_program,
)
from model_zoo.bounds.crown_margins import STEPS


@dataclass(frozen=True)
class Method:
    """One way to certify.

    Args:
        name: as on the command line and in the tables.
        prove: what it does.
        prepare: what it needs of a model, before anything is computed.
        version: one more with whatever moves its verdicts.
        settings: numbers that it goes by.
        after: cheaper methods whose certificates this one could make, too: it goes on with what they leave unknown.
        is_deterministic: whether it is a proof about the model itself.
        norms: the threat models that it takes.
        summary: one line.
    """

    name: str
    _: KW_ONLY
    prove: Prove
    prepare: Prepare = with_bounds
    summary: str
    version: int = 1
    settings: Settings = field(default_factory=lambda: MappingProxyType({}))
    after: Sequence[str] = ()
    is_deterministic: bool = True
    norms: Sequence[str] = ("Linf",)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines its verdicts."""
        return {"name": self.name, "version": self.version, "settings": dict(self.settings)}

    @property
    def described(self) -> str:
        """Its settings in a few words."""
        return " ".join(f"{name}={value:g}" for name, value in self.settings.items())

    def require_norm(self, threat: ThreatModel) -> None:
        """Raise InputError where it does not take this norm."""
        if threat.norm not in self.norms:
            raise InputError(
                f"{self.name} certifies under {' and '.join(self.norms)}, got {threat.norm}; use smoothing, or --norm "
                f"{self.norms[0]} with an --epsilon"
            )


METHODS: Mapping[str, Method] = by_name(
    (
        Method("ibp", prove=by_intervals, summary="intervals, layer by layer"),
        Method("convex", prove=by_chords, after=("ibp",), summary="the convex outer bound: parallel lines"),
        Method(
            "crown",
            prove=by_crown,
            after=("ibp",),
            settings={"steps": STEPS},
            summary="linear bounds with the best slopes, optimised",
        ),
        Method(
            "bab",
            prove=by_branches,
            after=("ibp", "crown"),
            settings={"seconds": 30.0},
            summary="complete verification by branch and bound on CROWN, with a time limit an image",
        ),
        Method(
            "milp",
            prove=by_program,
            prepare=with_program,
            after=("ibp", "crown"),
            settings={"seconds": 30.0},
            summary="complete verification of small networks by mixed-integer programs, with a time limit an image",
        ),
        Method(
            "smoothing",
            prove=by_smoothing,
            prepare=lambda _: None,
            settings={"sigma": 0.25, "n0": 100, "n": 10_000, "alpha": 0.001},
            is_deterministic=False,
            norms=("L2", "Linf"),
            summary="the model under Gaussian noise, by votes",
        ),
    ),
    "method",
)
DETERMINISTIC = ("ibp", "crown")
"""What is run where nothing is named."""


def choose_methods(names: Sequence[str], settings: Mapping[str, float | None]) -> list[Method]:
    """The methods named, from cheap to complete, with the settings that the user wants otherwise.

    Args:
        settings: by name; None where it stays as it is.

    Raises: InputError for an unknown method, or a setting that none of them has.
    """
    for name in names:
        lookup(name, METHODS, "method")
    chosen = [method for method in METHODS.values() if method.name in names]
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if not any(name in method.settings for method in chosen):
            owners = [method.name for method in METHODS.values() if name in method.settings]
            raise InputError(
                f"--{name} is a setting of {' and '.join(owners)}, which does not run; name it by --method"
            )
    return [
        replace(
            method,
            settings={name: given.get(name, value) for name, value in method.settings.items()},
        )
        for method in chosen
    ]
