"""Two attacks on the same images, or one attack under two settings: who breaks what the other does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attacks.errors import InputError
from benchmark.report.score import score_suite
from benchmark.report.tables import write_csv
from benchmark.stats.shares import difference_interval, percent
from benchmark.stats.shares import mcnemar as mcnemar
from benchmark.store.shown import ShownCase
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from model_zoo.files.atomic import atomic_write, file_of

POOLED = "all models"
LEGEND = (
    "robust_acc and against_acc in percent, by any iterate; difference: the first minus the second, in points, with a "
    "95% interval; first_only, second_only: images that one attack alone breaks; p: exact McNemar test; "
    "all models: each image counts once a model, which is no independent sample; "
    "passes: forward + backward on an image that is left standing."
)

Found = Mapping[tuple[str, str, str], tuple[ShownCase, Verdicts]]
"""(suite, model, attack) to what was run and its verdicts, white-box cases only."""

SAME = ("norm", "epsilon", "networks", "images")
"""What two verdicts must agree in, beside the images' indices and labels, to be compared."""


@dataclass(frozen=True)
class Pair:
    """An attack, and the one that it is compared with."""

    first: str
    second: str


def compare(
    ours: Found, theirs: Found, suites: Sequence[str], pairs: Sequence[Pair]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare verdicts image by image, for every model that has both; where one attack saw fewer images, on those.

    Args:
        ours, theirs: the verdicts of a pair's first and second attack, by `white_box`; maybe the same.
        suites: where they come from.

    Returns: a row for each pair and model, and one for all models together; a row for each image that they disagree on.
    Raises: InputError where no model has both attacks, or their verdicts are not of the same model, images and threat.
    """
    rows, disagreements = [], []
    for pair in pairs:
        both = [
            (suite, model, found, theirs[suite, model, pair.second])
            for (suite, model, attack), found in ours.items()
            if attack == pair.first and (suite, model, pair.second) in theirs
        ]
        if not both:
            raise InputError(
                f"expected verdicts of {pair.first} and {pair.second} on one model of {', '.join(suites)}, found none; "
                "run both first, or name the folders by --results-dir and --against-dir"
            )
        compared: list[tuple[Verdicts, Verdicts]] = []
        for suite, model, (entry, one), (against, other) in both:
            differs = [name for name in SAME if getattr(entry, name) != getattr(against, name)]
            if len(one.index) != len(other.index):
                differs = [name for name in differs if name != "images"]
                one, other = _in_common(one, other)
            if not len(one.index) or not (
                np.array_equal(one.index, other.index) and np.array_equal(one.label, other.label)
            ):
                differs.append("images")
            if differs:
                raise InputError(
                    f"{pair.first} and {pair.second} on {model} differ in {', '.join(dict.fromkeys(differs))}; "
                    "run both on the same model, images and threat model"
                )
            compared.append((one, other))
            rows.append({"suite": suite, "model": model, **_row(pair, [one], [other])})
            for image in np.flatnonzero(one.robust_any != other.robust_any):
                winner = "second" if one.robust_any[image] else "first"
                where = {"suite": suite, "model": model, "image": one.index[image], "label": one.label[image]}
                disagreements.append({**where, "attack": pair.first, "against": pair.second, "broken_by": winner})
        if len(both) > 1:
            pooled = _row(pair, [one for one, _ in compared], [other for _, other in compared])
            rows.append({"suite": "", "model": POOLED, **pooled, "low": None, "high": None, "p": None})
    columns = ["suite", "model", "image", "label", "attack", "against", "broken_by"]
    return pd.DataFrame(rows), pd.DataFrame(disagreements, columns=columns)


def left_out(ours: Found, theirs: Found, pairs: Sequence[Pair]) -> list[str]:
    """The models that have one attack of a pair and lack the other, each with what it lacks."""
    lacking = []
    for pair in pairs:
        has = {cell[:2] for cell in ours if cell[2] == pair.first}
        other = {cell[:2] for cell in theirs if cell[2] == pair.second}
        lacking += [f"{model} (no {pair.second})" for _, model in sorted(has - other)]
        lacking += [f"{model} (no {pair.first})" for _, model in sorted(other - has)]
    return lacking


def write_comparison(table: pd.DataFrame, disagreements: pd.DataFrame, stem: Path) -> str:
    """Write STEM.csv, STEM.md and STEM-disagreements.csv. Returns: the text to print."""
    write_csv(file_of(stem, ".csv"), table.round(4))
    write_csv(file_of(stem, "-disagreements.csv"), disagreements)
    intervals = zip(table["difference"], table["low"], table["high"], strict=True)
    shown = table.drop(columns=["low", "high"]).assign(
        difference=[
            f"{d:+.2f}" if pd.isna(low) else f"{d:+.2f} [{low:+.2f}, {high:+.2f}]" for d, low, high in intervals
        ]
    )
    shown = shown.astype(object).where(shown.notna(), None)
    text = f"{shown.to_markdown(index=False, floatfmt='.4g', missingval='')}\n\n{LEGEND}\n"
    atomic_write(file_of(stem, ".md"), text.encode())
    return text


def white_box(store: Store, suites: Sequence[str]) -> Found:
    """Every complete white-box case of some suites."""
    found = {}
    for suite in suites:
        for entry in score_suite(store, suite).entries:
            stored = store.read(entry.key, entry.n) if not entry.source_model else None
            if stored is not None:
                found[suite, entry.model, entry.attack] = entry, stored[0]
    return found


def _in_common(one: Verdicts, other: Verdicts) -> tuple[Verdicts, Verdicts]:
    """Both for the images that both have."""

    def some(verdicts: Verdicts, of: Verdicts) -> Verdicts:
        rows = np.isin(verdicts.index, of.index)
        columns: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in vars(verdicts).items()
        }
        return Verdicts(**columns)

    return some(one, other), some(other, one)


def _row(pair: Pair, one: Sequence[Verdicts], other: Sequence[Verdicts]) -> dict[str, Any]:
    robust, against = (np.concatenate([verdicts.robust_any for verdicts in side]) for side in (one, other))
    only_first, only_second = int((against & ~robust).sum()), int((robust & ~against).sum())
    low, high = difference_interval(only_first, only_second, len(robust))
    return {
        "attack": pair.first,
        "against": pair.second,
        "n": len(robust),
        "robust_acc": percent(robust),
        "against_acc": percent(against),
        "difference": percent(robust) - percent(against),
        "low": low,
        "high": high,
        "first_only": only_first,
        "second_only": only_second,
        "p": mcnemar(only_first, only_second),
        "passes": _passes(one),
        "against_passes": _passes(other),
    }


def _passes(side: Sequence[Verdicts]) -> str:
    """Forward + backward passes of an image that is left standing, on average."""
    standing = [verdicts.robust_any for verdicts in side]
    counts = [
        np.concatenate([passes[rows] for passes, rows in zip(columns, standing, strict=True)])
        for columns in ([v.forwards for v in side], [v.backwards for v in side])
    ]
    return " + ".join(f"{count.mean():.0f}" if len(count) else "-" for count in counts)
