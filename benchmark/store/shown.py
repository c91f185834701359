"""What the tables of a suite show: which cases, under which names, and of which images, threat model and seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

KINDS: Mapping[Any, type | tuple[type, ...]] = {
    str: str,
    int: int,
    float: (float, int),
    tuple[int, ...]: list,
    Mapping[str, Mapping[str, str]]: dict,
}
"""By the type of a field of `ShownCase`, what JSON has there."""
UNLESS_DEFAULT = ("judge_draws", "eot", "origin")
"""Fields that are written only where they say something."""


@dataclass(frozen=True)
class ShownCase:
    """One case that the tables of a suite show: its key, and the names and settings that its row shows.

    Args:
        rank: its place in the tables, whatever the order in which the user named models and attacks.
        networks: what the names of its models stand for.
        epsilon: in pixel scale [0, 1].
        source_model: "" for a white-box case.
        n: how many images; images: their digest. seed: of all draws. version: of the attack.
        schedule: how the model was trained here, in a few words; "" where that is not known.
        judge_draws, eot, origin: as in `EvalCase`.
    """

    key: str
    rank: tuple[int, ...]
    suite: str
    dataset: str
    model: str
    defense: str
    architecture: str
    checkpoint_sha256: str
    networks: Mapping[str, Mapping[str, str]]
    norm: str
    epsilon: float
    attack: str
    source_model: str
    n: int
    images: str
    seed: int
    version: int
    schedule: str
    judge_draws: int = 0
    eot: int = 1
    origin: str = ""

    @property
    def cell(self) -> str:
        """Where it stands in a table: MODEL/ATTACK/SOURCE, with nothing behind the last stroke for a white-box case."""
        return f"{self.model}/{self.attack}/{self.source_model}"

    @property
    def title(self) -> str:
        """The cell as people read it: MODEL/ATTACK for a white-box case."""
        return self.cell.removesuffix("/")

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON, in alphabetical order."""
        written = {**asdict(self), "rank": list(self.rank)}
        default = {field.name: field.default for field in fields(self)}
        return {
            name: written[name]
            for name in sorted(written)
            if name not in UNLESS_DEFAULT or written[name] != default[name]
        }


def case_from(record: object) -> ShownCase:
    """What `ShownCase.to_dict` wrote. Raises: ValueError, in one line, for anything else."""
    if not isinstance(record, dict):
        raise ValueError(f"expected a case that a table shows, got {type(record).__name__}")
    known = {field.name: field for field in fields(ShownCase)}
    lacking = [name for name, field in known.items() if field.default is MISSING and name not in record]
    unknown = sorted(repr(name) for name in record.keys() - known.keys())
    if lacking or unknown:
        what = f"none with {unknown[0]}" if unknown else f"one without {lacking[0]}"
        raise ValueError(f"expected a case that a table shows, {what}")
    for name, value in record.items():
        if isinstance(value, bool) or not isinstance(value, KINDS[known[name].type]):
            raise ValueError(f"expected {name} of a case that a table shows, got {str(value)[:40]!r}")
    if not all(isinstance(place, int) for place in record["rank"]):
        raise ValueError("expected whole numbers as the rank of a case that a table shows, got others")
    return ShownCase(**{**record, "rank": tuple(record["rank"])})


@dataclass(frozen=True)
class Selection:
    """What one table never mixes.

    Args:
        images: how the digest of the images begins that its cases attack, all or a part of them.
        norm, epsilon: the threat model. seed: of all draws.
    """

    images: str
    norm: str
    epsilon: float
    seed: int

    @property
    def text(self) -> str:
        """As the store names it; `selection_from` reads it."""
        return f"{self.images} {self.norm} {self.epsilon} seed {self.seed}"

    @property
    def difference(self) -> str:
        """What tells it from other selections of the same images and norm; part of a file's name."""
        return f"epsilon-{self.epsilon}-seed-{self.seed}"


def selection_of(case: ShownCase) -> Selection:
    """The selection that a case belongs to."""
    return Selection(case.images[:16], case.norm, case.epsilon, case.seed)


def selection_from(text: str) -> Selection:
    """The selection that the store names so. Raises: ValueError, in one line, for another text."""
    parts = text.rsplit(" ", 4)
    if len(parts) != 5 or parts[3] != "seed":
        raise ValueError(f"expected IMAGES NORM EPSILON seed SEED, got {text[:80]!r}")
    images, norm, epsilon, _, seed = parts
    return Selection(images, norm, float(epsilon), int(seed))


@dataclass(frozen=True)
class Shown:
    """The cases that a table shows.

    Args:
        reading: the iterate that decides, "any" or "last".
        cases: in display order.
    """

    reading: str = "any"
    cases: Sequence[ShownCase] = ()


@dataclass(frozen=True)
class SuiteRecord:
    """What the tables of a suite showed in all runs so far.

    Args:
        shown: the newest selection, which they show now.
    """

    shown: Selection
    selections: Mapping[Selection, Shown]

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON."""
        selections = {
            selection.text: {"reading": one.reading, "entries": {case.cell: case.to_dict() for case in one.cases}}
            for selection, one in self.selections.items()
        }
        return {"selections": selections, "shown": self.shown.text}


def suite_record_from(record: Mapping[str, Any]) -> SuiteRecord:
    """What `SuiteRecord.to_dict` wrote. Raises: ValueError, in one line, for anything else."""
    try:
        selections = {
            selection_from(text): Shown(str(one["reading"]), _in_order(map(case_from, one["entries"].values())))
            for text, one in record["selections"].items()
        }
        shown = selection_from(record["shown"])
    except (LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"expected selections of cases, got others ({type(error).__name__})") from None
    if shown not in selections:
        raise ValueError(f"expected the cases of {shown.text}, got none")
    return SuiteRecord(shown, selections)


def _in_order(cases: Iterable[ShownCase]) -> tuple[ShownCase, ...]:
    return tuple(sorted(cases, key=lambda case: case.rank))
