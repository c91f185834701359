"""Whom the diagnosis flags, masked models and honest ones: measure_diagnosis.py STEM RESULTS DATA [KIND | SUITE].

Runs `diagnose` as a user would, of PGD-40 as it is: on every model of `digits` and of `mnist` (with the data of DATA;
honest), on the defended models of `digits-masked` and `mnist-masked` (`defense`), and on the masks of `masks.py` and
`unseen_masks.py` in front of the undefended digits model and of `head_masks.py` behind an adversarially trained one
(`mask`). RESULTS keeps the verdicts and what was found: a run that was stopped goes on. KIND is one of honest, defense,
mask, SUITE a suite's name; all unless one is given. STEM.csv has a row a model that RESULTS has, and those of other
models that it had before; STEM.md the confusion matrix.

No margin was chosen on masks: each is the literature's, or wider than what honest models show. But the checks were made
with the masks of `masks.py`, MASKS of `head_masks.py` and the defenses in view, and not with the unseen ones.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import head_masks
import masks
import pandas as pd
import unseen_masks

from benchmark.cli.app import cli
from benchmark.report.tables import write_csv
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.store import Store
from benchmark.suites.models import models_for
from model_zoo.files.atomic import atomic_write
from model_zoo.registry import SHIPPED

NOWHERE = Path("no checkpoints of the user's")
FEWER = MappingProxyType(
    {
        "digits": {
            **dict.fromkeys(("noise", "noise-0.1", "noise-0.2", "resize-pad-0.9", "sap-100", "sap-200"), ("100", "64")),
            **dict.fromkeys(("projection-20", "projection-50"), ("16", "8")),
        },
        "mnist": {
            **dict.fromkeys(("noise-0.2", "resize-pad-0.9", "sap-100"), ("40", "8")),
            "projection-50": ("16", "8"),
            "quilting-2": ("40", "16"),
        },
    }
)
"""Images and hidden points, by dataset, of models whose passes are dear: they average twenty, descend to an image
first, or look for patches.
"""
REWEIGHTED = (("digits", "gairat"), ("digits", "gair-fat"))
"""Their losses weigh images by how far they are from the boundary, and PGD-40 leaves 17.8 and 16.6 points more standing
than AutoAttack does: no masks, and not honest, either. On MNIST these are 8.1 and 5.7.
"""
MASKED = ("digits-masked", "mnist-masked")
PLENTY = MappingProxyType({"digits": ("200", "128"), "mnist": ("100", "64")})
"""Images and hidden points of all others, by dataset."""


@dataclass(frozen=True)
class Subject:
    """A model to diagnose: its kind, the suite that its diagnosis is stored for, how the command names it."""

    name: str
    kind: str
    suite: str
    words: Sequence[str]


def subjects(data: str) -> Iterator[Subject]:
    """All models, honest ones first."""
    for suite in ("digits", "mnist"):
        for name in shipped(suite):
            kind = "re-weighted" if (suite, name) in REWEIGHTED else "honest"
            yield Subject(name, kind, suite, ("--models", name, "--suite", suite, "--data-dir", data))
    for suite in MASKED:
        for name in shipped(suite):
            yield Subject(name, "defense", suite, ("--models", name, "--suite", suite, "--data-dir", data))
    made = {
        "mask": (*masks.MASKS, *head_masks.MASKS),
        "unseen mask": (*unseen_masks.MASKS, *head_masks.UNSEEN),
    }
    for kind, functions in made.items():
        for mask in functions:
            file = Path(mask.__code__.co_filename).resolve()
            yield Subject(mask.__name__, kind, "digits", ("--model", f"{file}:{mask.__name__}"))


def shipped(suite: str) -> list[str]:
    """The models that were trained for a suite itself, none that it borrows; their weights are in the repository."""
    return [name for name in models_for(suite, NOWHERE) if (SHIPPED / suite / f"{name}.json").is_file()]


def diagnose(one: Subject, results: Path) -> None:
    """By the command line, unless it was done before."""
    if found(one, results) is None:
        dataset = one.suite.removesuffix("-masked")
        images, hidden = FEWER[dataset].get(one.name, PLENTY[dataset])
        size = ("--examples", images, "--hidden", hidden)
        folder = ("--results-dir", str(results / one.kind), "--workers", "1", "--quiet")
        with contextlib.redirect_stdout(io.StringIO()):
            cli(["diagnose", *one.words, *size, *folder], standalone_mode=False)
    print(one.kind, one.suite, one.name, *getattr(found(one, results), "failed", ["?"]), flush=True)


def found(one: Subject, results: Path) -> Diagnosis | None:
    """What is stored of a model."""
    store = Store(results / one.kind / "runs")
    return next((made for made in store.read_diagnoses(one.suite) if made.model == one.name), None)


def overestimates() -> pd.Series:
    """By suite and model, the points of robust accuracy that PGD-40 has beyond the worst case over all attacks."""
    boards = {suite: pd.read_csv(f"results/{suite}/leaderboard.csv", index_col="model") for suite in MASKED}
    return pd.concat({suite: (board["pgd-40"] - board["worst case"]).round(1) for suite, board in boards.items()})


def row(one: Subject, made: Diagnosis, overestimates: pd.Series) -> dict[str, object]:
    """Of one model."""
    unsure = [finding.check for finding in made.findings if finding.outcome == "cannot-tell"]
    return {
        "model": one.name,
        "kind": one.kind,
        "suite": one.suite,
        "n": made.n,
        "PGD-40 overestimates by": overestimates.get((one.suite, one.name)),
        "flagged": bool(made.failed),
        "fails": " ".join(made.failed),
        "cannot tell": " ".join(unsure),
        "forwards": made.forwards,
        "backwards": made.backwards,
        "checks": made.checks,
    }


def summary(table: pd.DataFrame) -> str:
    """The confusion matrix, and the rows of all that are flagged or not honest."""
    counted = table.groupby(["kind", "suite"], sort=False)["flagged"].agg(models="count", flagged="sum").reset_index()
    counted["not flagged"] = counted["models"] - counted["flagged"]
    shown = table[table["flagged"] | (table["kind"] != "honest")].drop(columns=["flagged"])
    note = (
        "`diagnose` of pgd-40 as it is, the default checks: 200 images and up to 128 hidden points, on MNIST 100 and "
        "64 (fewer where n says so; of a model that answers at random a quarter, and every table flags it as "
        "`randomized`). `PGD-40 overestimates by`: points of robust accuracy that it has in results/digits-masked "
        "and results/mnist-masked beyond the worst case over all attacks, adaptive ones too. No margin was chosen "
        "on masks, and no check was made or changed with the unseen ones in view. `checks`: their version. "
        "Not flagged are models that add noise, shift or resize at random, which tables flag as `randomized`, and "
        "median filters, which hide no gradient; where it was measured PGD-40 overestimates them by 4.2 points at most."
    )
    parts = [counted.to_markdown(index=False), note, shown.to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join(["## Whom the diagnosis flags", *parts]) + "\n"


def main() -> None:
    stem, results, data, *chosen = sys.argv[1:]
    everyone = list(subjects(data))
    for one in everyone:
        if not chosen or one.kind.split()[-1] in chosen or one.suite in chosen:
            diagnose(one, Path(results).resolve())
    file = Path(stem).with_suffix(".csv")
    texts = {"fails": str, "cannot tell": str}
    old = pd.read_csv(file, converters=texts).to_dict("records") if file.exists() else []
    before = {(line["kind"], line["suite"], line["model"]): line for line in old}
    points = overestimates()
    rows: list[dict[Any, Any]] = []
    for one in everyone:
        made = found(one, Path(results).resolve())
        if made is not None:
            rows.append(row(one, made, points))
        elif line := before.get((one.kind, one.suite, one.name)):
            rows.append(line)
    table = pd.DataFrame(rows).fillna(dict.fromkeys(texts, ""))
    write_csv(file, table)
    atomic_write(Path(stem).with_suffix(".md"), summary(table).encode())
    print(summary(table))


if __name__ == "__main__":
    main()
