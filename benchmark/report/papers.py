"""Published figures beside measured ones. The figures are data (`benchmark/suites/published`).

A row of a paper's table is measured on one or more models of ours: the authors' checkpoint, and what our recipe trains.
What is not measured here keeps its published figure, and gets the command that would measure it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attacks.registry import ATTACKS
from benchmark.report.score import Judged, SuiteScores
from benchmark.stats.shares import Bools, percent, wilson
from benchmark.store.shown import ShownCase
from benchmark.suites.case import ADAPTIVE
from benchmark.suites.published import FIGURES, ROWS, STUDIED, Figure, Row
from benchmark.suites.registry import SUITES
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS, OF_LAST
from model_zoo.robustbench_adapter import PREFIX

CLEAN = "clean"
SCHEDULE = "not the authors' weights"
BEST = "the best epoch, the paper's is the last"
COLUMNS = (
    *("row", "model", "attack", "crafted_on", "n", "published", "std", "measured", "ci_low", "ci_high", "difference"),
    *("inside", "why", "source", "state", "command"),
)


def paper_table(suite: SuiteScores, rows: Sequence[Row] = ROWS, figures: Sequence[Figure] = FIGURES) -> pd.DataFrame:
    """One line for each published figure of a suite and each model that was measured for it.

    Returns: `why` says what can set the two apart, `command` what measures a figure that has not been. Empty where the
        scores are of another threat model than the suite's, or nothing is published.
    """
    lines = [
        line
        for row in rows
        if row.suite == suite.suite and _is_the_papers_threat(suite)
        for figure in figures
        if (figure.suite, figure.row) == (row.suite, row.row)
        for line in _lines(suite, row, figure)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _is_the_papers_threat(suite: SuiteScores) -> bool:
    if suite.suite not in SUITES:
        return True
    threat = SUITES[suite.suite].threat
    return all((entry.norm, entry.epsilon) == (threat.norm, threat.epsilon) for entry in suite.entries)


def _lines(suite: SuiteScores, row: Row, figure: Figure) -> Iterator[dict[str, Any]]:
    measured = [found for model in row.models if (found := _measured(suite, model, figure)) is not None]
    shown = {
        "row": row.row,
        "attack": figure.attack,
        "crafted_on": figure.crafted_on[0] if figure.crafted_on else "",
        "published": figure.published,
        "std": figure.std,
    }
    origin = {"source": figure.source, "state": figure.state}
    for entry, held in measured:
        low, high = wilson(int(held.sum()), len(held))
        numbers = {
            "model": entry.model,
            "n": len(held),
            "measured": percent(held),
            "ci_low": low,
            "ci_high": high,
            "difference": percent(held) - figure.published,
            "inside": "yes" if low <= figure.published <= high else "no",
            "why": "; ".join(_reasons(row, figure, entry, len(held))),
        }
        yield {**shown, **numbers, **origin, "command": ""}
    if not measured:
        command = _command(suite, row, figure)
        why = "; ".join(filter(None, (row.note, figure.note, "" if command else "not in this project")))
        yield {**shown, "model": "", "n": None, "measured": None, "why": why, **origin, "command": command}


def _measured(suite: SuiteScores, model: str, figure: Figure) -> tuple[ShownCase, Bools] | None:
    """The case that a figure is compared with, on the most images, and which of these are classified correctly."""
    found: list[tuple[ShownCase, Judged]] = [
        (entry, judged)
        for entry, judged in zip(suite.entries, suite.judged, strict=True)
        if entry.model == model
        and (figure.attack == CLEAN or entry.attack == figure.attack)
        and (entry.source_model in figure.crafted_on if figure.crafted_on else not entry.source_model)
    ]
    if not found:
        return None
    entry, judged = max(found, key=lambda pair: pair[0].n)
    return entry, (judged.clean if figure.attack == CLEAN else judged).robust


def _reasons(row: Row, figure: Figure, entry: ShownCase, n: int) -> Iterator[str]:
    """What can set a measured figure apart from the published one."""
    if figure.n is not None and n < figure.n:
        yield f"{n} of {figure.n} images"
    if not _is_the_authors(entry):
        yield f"{SCHEDULE}: {entry.schedule}" if entry.schedule else SCHEDULE
        if row.architecture and entry.architecture != row.architecture:
            yield f"network {entry.architecture}, the paper's is {row.architecture}"
        if f"{entry.model}{OF_LAST}" in row.models:
            yield BEST
    yield from filter(None, (row.note, figure.note))


def _command(suite: SuiteScores, row: Row, figure: Figure) -> str:
    """The words that measure a figure; "" where the attack or the defense is not in this project."""
    if suite.suite not in SUITES:
        studies = [study for begin, study in STUDIED.items() if row.row.startswith(begin)]
        return f"python run_benchmark.py study {studies[0]}" if studies else ""
    attacks = {*(attack.name for attack in SUITES[suite.suite].attacks), *ATTACKS}
    of_robustbench = [name for name in row.models if name[0].isupper()]  # all other names are lower case
    plain = figure.attack.removesuffix(ADAPTIVE)
    if plain not in (CLEAN, *attacks) or not (row.train or _authors_model(row) or of_robustbench):
        return ""
    known = {entry.model for entry in suite.entries}
    model = next((name for name in row.models if name in known), None)
    before = behind = ""
    if model is None and (spec := _authors_model(row)) is not None:
        model, behind = spec.name, " --checkpoint-dir CHECKPOINTS"
        before = f"get {Path(spec.checkpoint).name} from {spec.url} as CHECKPOINTS/{spec.checkpoint}; "
    elif model is None and not row.train:
        model = PREFIX + of_robustbench[0]
    elif model is None:
        model = row.models[-1]
        name = model.removesuffix(OF_LAST)
        before = f"python run_benchmark.py train {row.train} --name {name}; "
    models = ",".join([model, *figure.crafted_on[:1]])
    attack = "" if figure.attack == CLEAN else f" --attacks {plain}"
    return f"{before}python run_benchmark.py --suite {suite.suite} --models {models}{attack}{behind}"


def _authors_model(row: Row) -> ModelSpec | None:
    return next((spec for spec in MODELS if spec.name in row.models and spec.url), None)


def _is_the_authors(entry: ShownCase) -> bool:
    """Whether a checkpoint is one that authors released: by its sha256, or by its name where that is not known."""
    theirs = [spec for spec in MODELS if spec.url]
    return any(spec.sha256 == entry.checkpoint_sha256 if spec.sha256 else spec.name == entry.model for spec in theirs)


CHECKED = (
    "state: where the published figure was looked up: the authors' page, RobustBench (its data), lecture slides (that "
    "quote the paper), or no page at all, from memory (unverified)."
)


def papers_markdown(table: pd.DataFrame, suite: str) -> str:
    """The table of a suite for people: what was measured, then what was not, with the commands that would."""
    measured = table[table["measured"].notna()]
    parts = []
    if len(measured):
        shown = pd.DataFrame(
            {
                "row": measured["row"],
                "model": measured["model"],
                "attack": [attack_of(line) for line in measured.itertuples()],
                "n": measured["n"].astype(int),
                "published": [with_std(line) for line in measured.itertuples()],
                "measured": [_with_interval(line) for line in measured.itertuples()],
                "difference": [f"{value:+.2f}" for value in measured["difference"]],
                "inside": measured["inside"],
                "what can set them apart": measured["why"],
                "state": measured["state"],
            }
        )
        parts.append(shown.to_markdown(index=False, disable_numparse=True))
    missing = table[table["measured"].isna()]
    if len(missing):
        shown = pd.DataFrame(
            {
                "row": missing["row"],
                "attack": [attack_of(line) for line in missing.itertuples()],
                "published": [with_std(line) for line in missing.itertuples()],
                "to measure it": [_remedy(line) for line in missing.itertuples()],
                "state": missing["state"],
            }
        )
        parts.append("Not measured here:\n\n" + shown.to_markdown(index=False, disable_numparse=True))
    return "\n\n".join([*parts, *[CHECKED] * bool(parts), *_short_attacks(suite)])


def _short_attacks(suite: str) -> list[str]:
    """A line for each attack of a suite whose steps do not lead from one side of the ball to the other."""
    lines = []
    for attack in SUITES[suite].attacks if suite in SUITES else ():
        if attack.algorithm != "pgd" or attack.steps == 1:
            continue
        reach = attack.steps * float(attack.params["rel_step_size"])
        if reach < 2 - 1e-9:
            lines.append(
                f"{attack.name}: its {attack.steps} steps add up to {reach:.2f} epsilon, as the paper has it: from a "
                "point of the ball they do not reach every other one, as 2 epsilon would."
            )
    return lines


def attack_of(line: Any) -> str:
    """The attack of a line of the table, and what it is crafted on."""
    return " from ".join(filter(None, (str(line.attack), str(line.crafted_on))))


def _with_interval(line: Any) -> str:
    return f"{line.measured:.2f} [{line.ci_low:.2f}, {line.ci_high:.2f}]"


def _remedy(line: Any) -> str:
    return "; ".join(filter(None, (line.command and f"`{line.command}`", line.why)))


def with_std(line: Any) -> str:
    """The published figure of a line of the table, with its spread over seeds."""
    return f"{line.published:.2f}" + ("" if pd.isna(line.std) else f" ± {line.std:.3g}")
