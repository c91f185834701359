"""What a study is: a function from settings to a table, what is published beside what was measured, and a sentence."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from attacks.errors import InputError
from attacks.names import lookup
from attacks.number import parse_number

RELATIONS = ("=", "<=", ">=")


@dataclass(frozen=True)
class Inputs:
    """What a study may read besides its settings.

    Args:
        data_dir, mirror_dir: of datasets.
        results_dir: whose `verdicts/` a study of stored verdicts reads.
        seed: of all draws.
        quiet: no progress is shown.
    """

    data_dir: Path = Path("data")
    mirror_dir: Path | None = None
    results_dir: Path = Path("results/mine")
    seed: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class Comparison:
    """A published (or proven) value beside the measured one.

    Args:
        what: a few words. published, measured: in the same unit.
        relation: of the measured to the published value: "=", "<=" or ">=".
        within: how far the measured value may be from that: rounding of the published one, and chance.
        n: how many points, images or problems the measured value is over.
        source: where the published value stands.
        why: what sets the two apart, where they do not agree.
    """

    what: str
    _: KW_ONLY
    published: float
    measured: float
    relation: str = "="
    within: float = 0.0
    n: int
    source: str
    why: str = ""

    def __post_init__(self) -> None:
        assert self.relation in RELATIONS

    @property
    def agrees(self) -> bool:
        """Whether the measured value is as published."""
        above = self.measured - self.published
        return {"=": abs(above), "<=": above, ">=": -above}[self.relation] <= self.within


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Args:
        table: tidy, one observation a row; the picture is drawn from it alone.
        comparisons: what is published beside what was measured.
        sentence: what the study shows, with its figures.
    """

    table: pd.DataFrame
    comparisons: Sequence[Comparison]
    sentence: str


@dataclass(frozen=True)
class Study:
    """One experiment.

    Args:
        name: as on the command line.
        compute: `compute(inputs, **settings)`.
        draw: the table's picture.
        settings: defaults of compute's keyword arguments, whole numbers or floats.
        paper: its source.
        summary: one line for `list studies`.
        minutes: with these settings, on two cores.
        version: raised whenever its numbers change.

    Raises: InputError for settings that `compute` does not take, or lacks.
    """

    name: str
    _: KW_ONLY
    compute: Callable[..., StudyResult]
    draw: Callable[[pd.DataFrame], Figure]
    settings: Mapping[str, int | float]
    paper: str
    summary: str
    minutes: float
    version: int = 1

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.compute).parameters.values()
        taken = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if taken != set(self.settings):
            raise InputError(f"study {self.name}: expected settings {sorted(taken)}, got {sorted(self.settings)}")


def chosen_settings(study: Study, overrides: Sequence[str]) -> dict[str, int | float]:
    """The study's settings, with what `--set KEY=VALUE` says otherwise.

    Raises: InputError for a setting that is unknown, of another type or not positive.
    """
    settings = dict(study.settings)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {override!r}")
        lookup(key, settings, "setting")
        is_whole = isinstance(study.settings[key], int)
        try:
            number = int(value) if is_whole else parse_number(value)
        except ValueError:
            kind = "a whole number" if is_whole else "a number or a fraction such as 8/255"
            raise InputError(f"--set {key} must be {kind}, got {value!r}") from None
        if number <= 0:
            raise InputError(f"--set {key} must be positive, got {value}")
        settings[key] = number
    return settings
