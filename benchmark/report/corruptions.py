"""Accuracy under common corruptions, as tables: by type and severity, the mean error, and the worst of all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.corruptions.cases import corruption_and_severity
from benchmark.corruptions.images import COMMON, SEVERITIES
from benchmark.report.score import Judged, SuiteScores, common_images
from benchmark.report.tables import write_csv
from benchmark.stats.shares import percent, wilson
from model_zoo.files.atomic import atomic_write

COLUMNS = ("model", "corruption", "severity", "n", "accuracy", "ci_low", "ci_high", "images")
NOTE = (
    "Accuracy in percent on the corrupted images, whether an image was right when clean or not; 95% intervals are in "
    "corruptions.csv. mean error: over the 15 common types and all severities, not divided by that of another model. "
    "worst: right when clean and under every one of these. The constants of the corruptions are those for ImageNet "
    "(arXiv:1903.12261): on small images they are harder than CIFAR-10-C's, and comparable with each other alone."
)


def corruption_table(suite: SuiteScores) -> pd.DataFrame:
    """A row a model, corruption and severity; severity 0 is of the images as they are."""
    rows: list[dict[str, Any]] = []
    for entry, judged in zip(suite.entries, suite.judged, strict=True):
        corruption, severity = corruption_and_severity(entry.attack)
        low, high = wilson(int(judged.correct.sum()), len(judged.index))
        about = {"model": entry.model, "corruption": corruption, "severity": severity, "n": len(judged.index)}
        numbers = {"accuracy": percent(judged.correct), "ci_low": low, "ci_high": high}
        rows.append({**about, **numbers, "images": entry.images[:16]})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary_table(suite: SuiteScores) -> pd.DataFrame:
    """A row a model, least mean error first: clean accuracy, mean error and worst of the common types, in percent.

    The last two are NaN where a common type or severity is not stored.
    """
    rows = []
    for model in dict.fromkeys(entry.model for entry in suite.entries):
        found = _by_corruption(suite, model)
        common = [found.get((name, severity)) for name in COMMON for severity in SEVERITIES]
        clean = found.get(("clean", 0))
        whole = [one for one in common if one is not None]
        is_complete = len(whole) == len(common) and clean is not None
        rows.append(
            {
                "model": model,
                "clean": float("nan") if clean is None else percent(clean.correct),
                "mean error": 100 - float(np.mean([percent(one.correct) for one in whole]))
                if is_complete
                else float("nan"),
                "worst": _worst([clean, *whole]) if is_complete and clean is not None else float("nan"),
                "n": 0 if clean is None else len(clean.index),
            }
        )
    return pd.DataFrame(rows).sort_values("mean error", kind="stable", ignore_index=True)


def by_severity(suite: SuiteScores, model: str) -> pd.DataFrame:
    """A row a corruption, a column a severity: accuracies of one model in percent."""
    found = _by_corruption(suite, model)
    names = list(dict.fromkeys(name for name, severity in found if severity))
    return pd.DataFrame(
        [
            {
                "corruption": name,
                **{
                    str(severity): percent(found[name, severity].correct)
                    for severity in SEVERITIES
                    if (name, severity) in found
                },
            }
            for name in names
        ]
    )


def write_corruptions(suite: SuiteScores, folder: Path) -> str:
    """Write corruptions.csv and corruptions.md into a suite's folder. Returns: the text of the summary."""
    table = corruption_table(suite)
    write_csv(folder / "corruptions.csv", table.round({"accuracy": 4, "ci_low": 4, "ci_high": 4}))
    summary = summary_table(suite)
    head = f"{summary.to_markdown(index=False, floatfmt='.2f')}\n"
    parts = [
        f"### {model}\n\n{by_severity(suite, str(model)).to_markdown(index=False, floatfmt='.1f')}\n"
        for model in summary["model"]
    ]
    title = f"## Common corruptions: {suite.suite}\n\n{suite.entries[0].dataset}. {NOTE}\n\n"
    atomic_write(folder / "corruptions.md", "\n".join([title + head, *parts]).encode())
    return head


def _by_corruption(suite: SuiteScores, model: str) -> dict[tuple[str, int], Judged]:
    return {
        corruption_and_severity(entry.attack): judged
        for entry, judged in zip(suite.entries, suite.judged, strict=True)
        if entry.model == model
    }


def _worst(judged: Sequence[Judged]) -> float:
    images = common_images(judged)
    return percent(np.all([one.on(images) for one in judged], axis=0))
