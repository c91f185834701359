"""Whom the diagnosis flags, masked models and honest ones: measure_diagnosis.py STEM RESULTS [N [HONEST]].

Runs `diagnose` as a user would (`--models NAME` for each of HONEST, all models of digits unless some are named, and
`--model masks.py:NAME` for each mask) on N images (200). RESULTS keeps the verdicts and what was found: a run that was
stopped goes on. STEM.csv has a row a model, STEM.md the confusion matrix.

No margin was chosen on masks: each is the literature's, or wider than what honest models show. But the checks were made
with the masks of `masks.py` in view; those of `unseen_masks.py` were written afterwards, and changed no check.
"""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import masks
import pandas as pd
import unseen_masks

from benchmark.cli.app import cli
from benchmark.report.tables import write_csv
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.store import Store
from benchmark.suites.models import models_for
from model_zoo.files.atomic import atomic_write

STORED = "stored"
"""In place of N: nothing is run, and the table is of what RESULTS has."""
NOWHERE = Path("no checkpoints of the user's")
HIDE_NOTHING = ("logits_x30", "logits_x300", "straight_through", "temperature_100")
"""Masks that PGD-40 sees through: its figures are those of the model without one, and a flag is a warning only."""


def diagnosed(results: Path, name: str, words: Sequence[str]) -> Diagnosis | None:
    """What the command finds of one model, now or when it was run before; None where it is not to run."""
    store = Store(results / "runs")
    if STORED not in words and name not in [one.model for one in store.read_diagnoses("digits")]:
        with contextlib.redirect_stdout(io.StringIO()):
            folder = ("--results-dir", str(results), "--workers", "1", "--quiet")
            cli(["diagnose", *words, *folder], standalone_mode=False)
    found = next((one for one in store.read_diagnoses("digits") if one.model == name), None)
    if found is not None:
        print(name, *found.failed, flush=True)
    return found


def rows(results: Path, examples: str, honest: Sequence[str]) -> Iterator[dict[str, object]]:
    """A row a model."""
    for file, role in ((masks, "in view"), (unseen_masks, "unseen")):
        for name in (mask.__name__ for mask in file.MASKS):
            words = ("--model", f"{file.__file__}:{name}", "--examples", examples)
            if one := diagnosed(results / "masked", name, words):
                yield _row(one, "masked", role)
    for name in honest:
        if one := diagnosed(results / "honest", name, ("--models", name, "--examples", examples)):
            yield _row(one, "honest", "in view")


def _row(one: Diagnosis, kind: str, role: str) -> dict[str, object]:
    unsure = [finding.check for finding in one.findings if finding.outcome == "cannot-tell"]
    return {
        "model": one.model,
        "kind": kind,
        "when the checks were made": role,
        "n": one.n,
        "flagged": bool(one.failed),
        "fails": " ".join(one.failed),
        "cannot tell": " ".join(unsure),
        "forwards": one.forwards,
        "backwards": one.backwards,
    }


def summary(table: pd.DataFrame) -> str:
    """The confusion matrix, and the rows that are flagged or cannot tell."""
    kinds = table.groupby(["kind", "when the checks were made"], sort=False)["flagged"]
    counted = kinds.agg(models="count", flagged="sum").reset_index()
    counted["not flagged"] = counted["models"] - counted["flagged"]
    shown = table[table["flagged"] | (table["kind"] == "masked")].drop(columns=["flagged", "n"])
    note = (
        f"digits, Linf 0.2, pgd-40, {table['n'].max()} images ({table['n'].min()} of a model that answers at random); "
        "the default checks. No margin was chosen on masks; the unseen ones were written when all checks were there, "
        f"and changed none. The masks {', '.join(HIDE_NOTHING)} hide nothing from pgd-40; what is flagged there stops "
        "attacks of other programs."
    )
    parts = [counted.to_markdown(index=False), note, shown.to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join(["## Whom the diagnosis flags", *parts]) + "\n"


def main() -> None:
    stem, results, *rest = sys.argv[1:]
    examples, honest = [*rest, *("200", ",".join(models_for("digits", NOWHERE)))[len(rest) :]]
    table = pd.DataFrame(rows(Path(results).resolve(), examples, honest.split(",")))
    write_csv(Path(stem).with_suffix(".csv"), table)
    atomic_write(Path(stem).with_suffix(".md"), summary(table).encode())
    print(summary(table))


if __name__ == "__main__":
    main()
