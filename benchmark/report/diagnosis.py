"""What diagnoses found, as tables: diagnosis.csv for programs, diagnosis.md and a table in the terminal for people."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmark.report.tables import write_csv
from benchmark.store.diagnosis import CHECKS, Diagnosis, diagnosis_from
from model_zoo.files.atomic import atomic_write

NOTE = "diagnoses"
"""In the notes of packed verdicts: what diagnoses found of the suite's models."""
COLUMNS = "model", "check", "outcome", "figure", "p", "p_holm", "margin", "attack", "n", "measured"
LEGEND = (
    "A check fails where its figure is beyond its margin and its exact test, corrected for all tests of the model "
    "(p_holm), is below 0.05; one that is beyond the margin, but not significantly, cannot tell. A check without p is "
    "a fact. Rows without outcome only inform."
)


def diagnosis_table(diagnoses: Sequence[Diagnosis]) -> pd.DataFrame:
    """A row a model and check."""
    rows = [
        {"model": one.model, "attack": one.attack, "n": one.n, **asdict(finding)}
        for one in diagnoses
        for finding in one.findings
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_diagnoses(diagnoses: Sequence[Diagnosis], folder: Path) -> None:
    """Write diagnosis.csv and diagnosis.md into a suite's folder; nothing where there are none."""
    if not diagnoses:
        return
    write_csv(folder / "diagnosis.csv", diagnosis_table(diagnoses))
    atomic_write(folder / "diagnosis.md", _markdown(diagnoses, folder.name).encode())


def _markdown(diagnoses: Sequence[Diagnosis], suite: str) -> str:
    lines = [f"## Diagnosis: {suite}", "", LEGEND, ""]
    for one in diagnoses:
        shown = diagnosis_table([one])[["check", "outcome", "figure", "margin", "p_holm", "measured"]]
        for column, form in (("figure", "{:.1f}"), ("margin", "{:.0f}"), ("p_holm", "{:.1g}")):
            shown[column] = [_cell(value, form) for value in shown[column]]
        lines += [f"### {one.model}", "", f"{verdict(one)} {cost(one)}", ""]
        lines += [shown.to_markdown(index=False, disable_numparse=True), ""]
    return "\n".join(lines)


def verdict(one: Diagnosis) -> str:
    """The sentence that a diagnosis comes to."""
    if one.failed:
        others = " Attacks of other programs stop where cross-entropy saturates; ours goes on."
        note = others if one.failed == ["saturated-loss"] else ""
        return f"{one.attack} is not shown to work on {one.model}: {', '.join(one.failed)}.{note}"
    lacking = [check for check in one.unsure if check not in one.beyond]
    unsure = f" Too few images, or nothing to measure: {', '.join(lacking)}." if lacking else ""
    if one.beyond:
        return (
            f"It is undecided whether {one.attack} works on {one.model}: {', '.join(one.beyond)} beyond the margin, "
            f"but not significantly on n={one.n} images; more of them would tell.{unsure}"
        )
    if not one.is_shown:
        return f"No check fails of {one.attack} on {one.model}, but none that looks for what it missed passes.{unsure}"
    return f"Nothing speaks against {one.attack} on {one.model}.{unsure}"


def cost(one: Diagnosis) -> str:
    """What it took."""
    return f"It took {one.forwards:,.0f} forward and {one.backwards:,.0f} backward passes an image, {one.n} images."


def short_diagnosis(one: Diagnosis, width: int) -> str:
    """A table for the terminal, no wider than so many columns, and the verdict."""
    table = Table(box=MARKDOWN)
    for name in ("check", "outcome", "figure", "p", "measured"):
        table.add_column(name, justify="right" if name in ("figure", "p") else "left", overflow="fold")
    for finding in one.findings:
        numbers = _cell(finding.figure, "{:.1f}"), _cell(finding.p_holm, "{:.1g}")
        table.add_row(finding.check, finding.outcome, *numbers, finding.measured)
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(table)
    lines = [line for line in text.getvalue().splitlines() if not line.isspace()]
    return "\n".join([*lines, "", textwrap.fill(verdict(one), width, break_on_hyphens=False), cost(one)])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or pd.isna(value) else form.format(value)


def notes_of(diagnoses: Sequence[Diagnosis]) -> dict[str, Any]:
    """What packed verdicts note of diagnoses; nothing of none."""
    return {NOTE: [one.to_dict() for one in diagnoses]} if diagnoses else {}


def noted_diagnoses(notes: Mapping[str, Any]) -> list[Diagnosis]:
    """What `notes_of` noted, by checks of today's version."""
    return [one for one in map(diagnosis_from, notes.get(NOTE, ())) if one.checks == CHECKS]
