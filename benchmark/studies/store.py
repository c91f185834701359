"""What a study leaves behind: STUDY.json last, so that whoever finds it finds the rest; and which studies lack it.

A folder RESULTS/studies/NAME has table.csv, published.csv, study.md, figure.png, figure.svg and study.json. The same
settings give the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from benchmark.report.figures import STYLE, save_figure
from benchmark.studies.study import Study, StudyResult
from model_zoo.files.atomic import atomic_write

DIGITS = 6
"""Significant digits of a float in a table: what is beyond differs between processors."""
LONGEST = 40
"""Rows of a table that the page shows."""


def study_folder(results_dir: Path, study: Study) -> Path:
    """Where the results of a study are."""
    return results_dir / "studies" / study.name


def is_done(results_dir: Path, study: Study, *, seed: int = 0) -> bool:
    """Whether the results of the study with its default settings and this seed are there, of its present version."""
    try:
        found = json.loads((study_folder(results_dir, study) / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == _identity(study, study.settings, seed))


def write_study(
    results_dir: Path, study: Study, settings: Mapping[str, int | float], seed: int, result: StudyResult
) -> Path:
    """Write all files of a study: whoever is killed before the end has not done it. Returns: its page."""
    folder = study_folder(results_dir, study)
    (folder / "study.json").unlink(missing_ok=True)
    published = _published(result)
    atomic_write(folder / "table.csv", _csv(result.table))
    atomic_write(folder / "published.csv", _csv(published))
    with matplotlib.rc_context(STYLE):
        save_figure(study.draw(result.table), folder / "figure")
    atomic_write(folder / "study.md", _page(study, settings, seed, result, published).encode())
    identity = json.dumps(_identity(study, settings, seed), indent=2, sort_keys=True)
    atomic_write(folder / "study.json", f"{identity}\n".encode())
    return folder / "study.md"


def comparison_table(result: StudyResult) -> str:
    """What is published beside what was measured, for the terminal and the page."""
    shown = _significant(_published(result)).drop(columns=["within"])
    return str(shown.to_markdown(index=False, disable_numparse=True))


def _identity(study: Study, settings: Mapping[str, int | float], seed: int) -> dict[str, Any]:
    return {"study": study.name, "version": study.version, "settings": dict(settings), "seed": seed}


def _published(result: StudyResult) -> pd.DataFrame:
    rows = [
        {
            "what": one.what,
            "relation": one.relation,
            "published": one.published,
            "measured": one.measured,
            "within": one.within,
            "n": one.n,
            "agrees": "yes" if one.agrees else f"no: {one.why}" if one.why else "no",
            "source": one.source,
        }
        for one in result.comparisons
    ]
    return pd.DataFrame(rows)


def _significant(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, floats with their significant digits."""
    return table.map(lambda value: f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value))


def _csv(table: pd.DataFrame) -> bytes:
    return _significant(table).to_csv(index=False, lineterminator="\n").encode()


def _page(
    study: Study, settings: Mapping[str, int | float], seed: int, result: StudyResult, published: pd.DataFrame
) -> str:
    words = [f"--set {key}={value:g}" for key, value in settings.items() if value != study.settings[key]]
    words += [f"--seed {seed}"] if seed else []
    command = " ".join(["python run_benchmark.py study", study.name, *words])
    used = ", ".join(f"{key} {value:g}" for key, value in settings.items())
    beyond = f"\nThe first {LONGEST} of {len(result.table)} rows; table.csv has all.\n"
    return (
        f"# {study.name}: {study.summary}\n\n{result.sentence}\n\n"
        f"{study.paper}. `{command}` (settings: {used}; seed {seed}).\n\n"
        f"![{study.summary}](figure.png)\n\n"
        f"## Published beside measured: {sum(one.agrees for one in result.comparisons)} of {len(published)} agree\n\n"
        f"{comparison_table(result)}\n\n## Measured\n"
        f"{beyond if len(result.table) > LONGEST else ''}\n"
        f"{_significant(result.table.head(LONGEST)).to_markdown(index=False, disable_numparse=True)}\n"
    )
