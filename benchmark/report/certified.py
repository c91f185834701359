"""What is certified, as tables: certified.csv, certified_radius.csv; and how packed verdicts carry it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.report.tables import write_csv
from benchmark.stats.shares import percent, wilson
from benchmark.store.certificate_store import both, in_order
from benchmark.store.certificates import BROKEN, Certified, certified_from

NOTE = "certified"
"""In the notes of packed verdicts: what is certified of the suite's models."""
COLUMNS = (
    *("model", "method", "epsilon", "n", "certified_acc", "ci_low", "ci_high"),
    *("norm", "witnesses", "settings", "images"),
)


def certified_table(certified: Sequence[Certified]) -> pd.DataFrame:
    """A row a model, method and threat model: accuracies in percent with 95% Wilson intervals.

    `witnesses` are images at which a complete method found a misclassified point.
    """
    rows = []
    for one in certified:
        low, high = wilson(int(one.certified.sum()), len(one.index))
        numbers = {"n": len(one.index), "certified_acc": percent(one.certified), "ci_low": low, "ci_high": high}
        about = {name: getattr(one, name) for name in ("model", "method", "epsilon", "norm", "settings")}
        rows.append({**about, **numbers, "witnesses": int((one.state == BROKEN).sum()), "images": one.images[:16]})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def radius_table(certified: Sequence[Certified]) -> pd.DataFrame:
    """Certified accuracy of smoothed classifiers against the L2 radius: a row a model and radius, in percent.

    Source: the curves of Cohen et al., arXiv:1902.02918, Section 4.
    """
    rows = []
    for one in certified:
        if one.radius is None:
            continue
        steps = int(one.radius.max(initial=0.0) / RADIUS_STEP) + 2  # the last one is beyond all
        for radius in (RADIUS_STEP * step for step in range(steps)):
            holds = one.radius >= radius
            low, high = wilson(int(holds.sum()), len(holds))
            numbers = {"radius": radius, "certified_acc": percent(holds), "ci_low": low, "ci_high": high}
            about = {name: getattr(one, name) for name in ("model", "settings")}
            rows.append({**about, "n": len(holds), **numbers})
    return pd.DataFrame(rows, columns=["model", "settings", "n", "radius", "certified_acc", "ci_low", "ci_high"])


RADIUS_STEP = 0.05


def write_certified(certified: Sequence[Certified], folder: Path) -> None:
    """Write certified.csv and certified_radius.csv into a suite's folder, where there is something in them."""
    numbers = {"certified_acc": 4, "ci_low": 4, "ci_high": 4}
    if certified:
        write_csv(folder / "certified.csv", certified_table(certified).round(numbers))
    radii = radius_table(certified)
    if not radii.empty:
        write_csv(folder / "certified_radius.csv", radii.round({"radius": 2, **numbers}))


def notes_of_certified(certified: Sequence[Certified]) -> dict[str, Any]:
    """What packed verdicts note of certificates; nothing of none."""
    return {NOTE: [one.to_dict() for one in certified]} if certified else {}


def noted_certified(notes: Mapping[str, Any]) -> list[Certified]:
    """What `notes_of_certified` noted."""
    return in_order([certified_from(record) for record in notes.get(NOTE, ())])


def together(own: Sequence[Certified], packed: Sequence[Certified]) -> list[Certified]:
    """What a store has, and what is packed; of the same place what either proves."""
    found = list(own)
    for one in packed:
        places = [other.place for other in found]
        if one.place in places:
            at = places.index(one.place)
            found[at] = both(found[at], one)
        else:
            found.append(one)
    return in_order(found)
