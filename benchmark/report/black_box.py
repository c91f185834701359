"""What models withstand without their gradients: by transfer, by queries for logits, by queries for labels."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from benchmark.report.leaderboard import shown_accuracy
from benchmark.report.score import Judged, SuiteScores
from benchmark.stats.shares import percent
from benchmark.store.shown import ShownCase

TIERS = ("transfer", "logits", "labels")
"""What an attacker has: other models, the model's logits, or its labels alone."""
TIER_NOTE = (
    "Each figure is a worst case over the attacks of that kind, on the images that all attacks of the model saw: "
    "`transfer` is crafted on other models, `logits` and `labels` query the model. `gap`: what others break beside."
)


def transfer_table(suite: SuiteScores) -> pd.DataFrame:
    """Robust accuracy of each target (columns) under examples crafted on each source (rows).

    Attacks are in the order of the suite, sources in the order of the models.
    """
    scores = suite.scores[suite.scores["source_model"] != ""].rename(columns={"source_model": "source"})
    scores = scores.assign(shown=shown_accuracy(suite, scores))
    if scores.empty:
        return pd.DataFrame()
    crossed = scores.pivot(index=["attack", "source"], columns="model", values="shown")
    sources = pd.unique(pd.concat([suite.scores["model"], scores["source"]]))
    rows = [row for row in itertools.product(suite.scores["attack"].unique(), sources) if row in crossed.index]
    return crossed.loc[rows, list(scores["model"].unique())].rename_axis(columns=None).reset_index()


def tier_of(case: ShownCase, specs: Mapping[str, AttackSpec] = ATTACKS) -> str | None:
    """What the attacker of a case has, of `TIERS`; None where it is the model's gradients, or is not known."""
    if case.source_model:
        return "transfer"
    asked = specs[case.attack].asks_for if case.attack in specs else "gradients"
    return asked if asked in TIERS else None


def tier_table(suite: SuiteScores, specs: Mapping[str, AttackSpec] = ATTACKS) -> pd.DataFrame:
    """A row a model: the worst case of each tier, of all of them, and of all attacks; accuracies in percent.

    Returns: no rows where no attack goes without gradients. NaN where a model saw no attack of a tier.
    """
    rows = []
    for model in suite.shared:
        tiers: dict[str, list[Judged]] = {name: [] for name in TIERS}
        for case, judged in zip(suite.entries, suite.judged, strict=True):
            if case.model == model and (tier := tier_of(case, specs)):
                tiers[tier].append(judged)
        black_box = [judged for found in tiers.values() for judged in found]
        if not black_box:
            continue
        worst, without_gradients = percent(suite.worst[model]), _fold(suite, model, black_box)
        each = {name: _fold(suite, model, found) for name, found in tiers.items()}
        gap = without_gradients - worst
        rows.append(
            {"model": model, **each, "black-box worst case": without_gradients, "worst case": worst, "gap": gap}
        )
    table = pd.DataFrame(rows)
    return table.dropna(axis=1, how="all") if rows else table


def _fold(suite: SuiteScores, model: str, cases: Sequence[Judged]) -> float:
    """The share of the model's common images that withstand all of some cases, in percent; NaN for none."""
    images = suite.shared[model]
    return percent(np.all([judged.on(images) for judged in cases], axis=0)) if cases else float("nan")
