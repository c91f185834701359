"""Published figures: data that was read elsewhere, each with where it stands and how far that could be checked."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd

from attacks.errors import InputError

STATES = ("authors' page", "RobustBench", "lecture slides", "unverified")
"""How far a figure was checked: on the authors' page, in RobustBench's data, on slides only, or not at all."""

UNMEASURED: Mapping[str, str] = {
    "tsipras": "Standard, half-half and robust training against the epsilon of the attack (Tsipras et al., ICLR 2019)",
    "certified-2-255": "CIFAR-10, certified at Linf 2/255 (RST's Figure 1b, and the authors' pages)",
    "robust-transfer": "Robust transfer learning (Shafahi et al., ICLR 2020), Linf",
    "sgm": "Skip gradient method (Wu et al., ICLR 2020): ImageNet, Linf 16/255, from one model to another",
    "unrestricted": "Unrestricted Adversarial Examples Challenge: Bird-or-Bicycle, and two classes of MNIST",
    "ds-net": "DS-Net's ranking of architectures: CIFAR-10, Linf, attack and epsilon are not stated",
    "fgsm-errors": "Error rates under FGSM (Goodfellow et al., ICLR 2015)",
}
"""Tables that no suite of this project measures, with what they are of; accuracies as everywhere, not error rates."""

STUDIED: Mapping[str, str] = {
    "Two-class MNIST (6 vs 7)": "unrestricted",
    **dict.fromkeys(("MNIST, Linf ", "MNIST, L2 ", "CIFAR-10, Linf "), "half-half"),
}
"""By how rows of these tables begin, the study that computes what they are of on networks of its own."""


@dataclass(frozen=True)
class Row:
    """A row of a paper's table.

    Args:
        suite: that measures it, or one of `UNMEASURED`.
        row: as the paper calls it.
        models: names of ours that are measured for it, the authors' checkpoint first.
        architecture: the paper's; "" where it is not known.
        train: words behind `train` that give the last of these; "" where there are none.
        note: what a reader must know of all its figures; "" for nothing.
    """

    suite: str
    row: str
    models: Sequence[str]
    architecture: str
    train: str
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A published accuracy, in percent.

    Args:
        attack: "clean", an attack of the suite, or the paper's name of one that the suite has not.
        crafted_on: the source models of a transfer attack, any of them; empty for white-box.
        std: over seeds; None where it is not published.
        n: how many test images; None where it is not known.
        source: where it stands; state: one of `STATES`; note: what a reader must know of it.
    """

    suite: str
    row: str
    attack: str
    crafted_on: Sequence[str]
    published: float
    std: float | None
    n: int | None
    source: str
    state: str
    note: str


@dataclass(frozen=True)
class Case:
    """What a claim speaks of, of one model: "clean", or an attack; crafted_on: a transfer attack's source, else ""."""

    attack: str
    crafted_on: str = ""

    @classmethod
    def parse(cls, text: str) -> "Case":
        """From "ATTACK" or "ATTACK from SOURCE"."""
        attack, _, source = text.strip().partition(" from ")
        return cls(attack.strip(), source.strip())


@dataclass(frozen=True)
class Measure:
    """Accuracy of a model in one case, or how much lower it is in another one.

    Args:
        model: its name without a seed.
        case: whose accuracy it is. less: the case whose accuracy is taken off; None for none.
    """

    model: str
    case: Case
    less: Case | None = None

    @classmethod
    def parse(cls, text: str) -> "Measure":
        """From "MODEL: CASE" or "MODEL: CASE - CASE". Raises: InputError for other text."""
        model, colon, cases = text.partition(": ")
        first, minus, second = cases.partition(" - ")
        if not (model and colon and first):
            raise InputError(f"expected a measure, MODEL: ATTACK [from SOURCE] [- ATTACK [from SOURCE]], got {text!r}")
        return cls(model, Case.parse(first), Case.parse(second) if minus else None)

    @property
    def cases(self) -> Sequence[Case]:
        """Its one case, or both."""
        return [self.case] if self.less is None else [self.case, self.less]

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        return f"{self.model}: " + " - ".join(
            case.attack + (f" from {case.crafted_on}" if case.crafted_on else "") for case in self.cases
        )


DIRECTIONS = ("more", "no less", "alike")


@dataclass(frozen=True)
class Claim:
    """What a paper says of two measures, which models of any size can put to the test.

    Args:
        paper: whose claim it is. claim: a sentence.
        direction: "more": the first exceeds the second by more than `size` points; "no less": it is not lower by more;
            "alike": they differ by less.
        published: the difference in the paper, in points; None where it has no figure.
        source: where that stands; state: one of `STATES`; note: what a reader must know.
    """

    paper: str
    claim: str
    first: Measure
    second: Measure
    direction: str
    size: float
    published: float | None
    source: str
    state: str
    note: str = ""

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise InputError(f"claim {self.claim!r}: expected one of {', '.join(DIRECTIONS)}, got {self.direction!r}")


def _records(name: str) -> list[dict[str, Any]]:
    text = (files("benchmark.suites.published") / name).read_text()
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    return [{str(key): value for key, value in record.items()} for record in frame.to_dict("records")]


ROWS: Sequence[Row] = tuple(Row(**{**record, "models": record["models"].split()}) for record in _records("rows.csv"))
FIGURES: Sequence[Figure] = tuple(
    Figure(
        **{
            **record,
            "crafted_on": record["crafted_on"].split(),
            "published": float(record["published"]),
            "std": float(record["std"]) if record["std"] else None,
            "n": int(record["n"]) if record["n"] else None,
        }
    )
    for record in _records("figures.csv")
)

CLAIMS: Sequence[Claim] = tuple(
    Claim(
        **{
            **record,
            "first": Measure.parse(record["first"]),
            "second": Measure.parse(record["second"]),
            "size": float(record["size"]),
            "published": float(record["published"]) if record["published"] else None,
        }
    )
    for record in _records("claims.csv")
)
