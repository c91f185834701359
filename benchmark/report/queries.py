"""What attacks without gradients cost whoever asks, and show whoever answers: queries, and the bad ones among them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attacks.registry import known_attack, query_budget
from benchmark.report.score import Judged, SuiteScores
from benchmark.stats.shares import percent
from benchmark.store.shown import ShownCase

BUDGETS = (1000, 2000, 10_000)
"""Queries an image, at which robust accuracies are shown."""
QUERY_NOTE = (
    "Queries and bad queries are over the images that the attack broke, up to and including the query that did. A "
    "query is bad if its answer is not the image's class: what the operator of an attacked service could notice. "
    "`at N`: what withstands the first N queries an image; `-` beyond the attack's own budget."
)


def counted(suite: SuiteScores) -> Iterator[tuple[ShownCase, Judged]]:
    """The cases whose queries are stored: those of attacks without gradients on the model itself."""
    for case, judged in zip(suite.entries, suite.judged, strict=True):
        if judged.queries is not None and judged.bad_queries is not None:
            yield case, judged


def query_table(suite: SuiteScores) -> pd.DataFrame:
    """A row a model and attack: queries of broken images, bad queries, and robust accuracy at `BUDGETS`, in percent.

    Returns: no rows where no queries are stored. NaN where nothing was broken, or beyond an attack's budget.
    """
    rows = []
    for case, judged in counted(suite):
        broken = judged.correct & ~judged.robust
        row = {"model": case.model, "attack": case.attack, "n": case.n, "broken": int(broken.sum())}
        for name, counts in (("queries", judged.queries), ("bad queries", judged.bad_queries)):
            assert counts is not None
            own = counts[broken]
            row[f"{name}, median"] = float(np.median(own)) if len(own) else float("nan")
            row[f"{name}, mean"] = float(np.mean(own)) if len(own) else float("nan")
        budget = budget_of(case, judged)
        shares = {f"at {n:,}": percent(robust_at(judged, n)) if n <= budget else float("nan") for n in BUDGETS}
        rows.append({**row, **shares, "in the end": percent(judged.robust)})
    return pd.DataFrame(rows).dropna(axis=1, how="all") if rows else pd.DataFrame()


def robust_at(judged: Judged, queries: int) -> NDArray[np.bool_]:
    """(N,) bool: correct when clean, and not broken by that many queries."""
    assert judged.queries is not None
    withstands: NDArray[np.bool_] = judged.correct & (judged.robust | (judged.queries > queries))
    return withstands


def budget_of(case: ShownCase, judged: Judged) -> float:
    """Up to how many queries an image it is known what withstands; infinity where nothing withstood."""
    assert judged.queries is not None
    if not judged.robust.any():
        return float("inf")
    spec = known_attack(case.attack)
    known = None if spec is None else query_budget(spec)
    return float(judged.queries[judged.robust].min()) if known is None else known
