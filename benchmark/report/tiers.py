"""What models withstand without their gradients: by transfer, by queries for logits, by queries for labels."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from attacks.registry import ATTACKS, known_attack
from attacks.spec import AttackSpec
from benchmark.report.score import Judged, SuiteScores
from benchmark.stats.shares import percent
from benchmark.store.shown import ShownCase

TIERS = ("transfer", "logits", "labels")
"""What an attacker has: other models, the model's logits, or its labels alone."""
BLACK_BOX = "black-box worst case"
"""The column of the worst case over all tiers."""
TIER_NOTE = (
    "Each figure is a worst case over the attacks of that kind, on the images that all attacks of the model saw: "
    "`transfer` is crafted on other models, `logits` and `labels` query the model. `gap`: what attacks with gradients "
    "break beyond all of these."
)


def tier_of(case: ShownCase, specs: Mapping[str, AttackSpec] = ATTACKS) -> str | None:
    """What the attacker of a case has, of `TIERS`; None where it is the model's gradients, or is not known."""
    if case.source_model:
        return "transfer"
    spec = specs.get(case.attack) or known_attack(case.attack)
    return None if spec is None or spec.asks_for not in TIERS else spec.asks_for


def black_box_worst_case(suite: SuiteScores, model: str) -> float | None:
    """What withstands all of a model's cases of any tier, in percent of its common images; None where it has none.

    It is a fold over some of the cases that the worst case is over, on the same images, and so never below that.
    """
    found = [judged for tier in _by_tier(suite, model, ATTACKS).values() for judged in tier]
    return _fold(suite, model, found) if found else None


def tier_table(suite: SuiteScores, specs: Mapping[str, AttackSpec] = ATTACKS) -> pd.DataFrame:
    """A row a model: the worst case of each tier, of all of them, and of all attacks; accuracies in percent.

    Returns: no rows where no attack goes without gradients. NaN where a model saw no attack of a tier, and
        in `gap` where it saw none with gradients.
    """
    rows = []
    for model in suite.shared:
        tiers = _by_tier(suite, model, specs)
        black_box = [judged for found in tiers.values() for judged in found]
        if not black_box:
            continue
        worst, without_gradients = percent(suite.worst[model]), _fold(suite, model, black_box)
        each = {name: _fold(suite, model, found) for name, found in tiers.items()}
        has_others = sum(case.model == model for case in suite.entries) > len(black_box)
        gap = without_gradients - worst if has_others else float("nan")
        rows.append({"model": model, **each, BLACK_BOX: without_gradients, "worst case": worst, "gap": gap})
    table = pd.DataFrame(rows)
    return table.dropna(axis=1, how="all") if rows else table


def _by_tier(suite: SuiteScores, model: str, specs: Mapping[str, AttackSpec]) -> dict[str, list[Judged]]:
    tiers: dict[str, list[Judged]] = {name: [] for name in TIERS}
    for case, judged in zip(suite.entries, suite.judged, strict=True):
        if case.model == model and (tier := tier_of(case, specs)):
            tiers[tier].append(judged)
    return tiers


def _fold(suite: SuiteScores, model: str, cases: Sequence[Judged]) -> float:
    """The share of the model's common images that withstand all of some cases, in percent; NaN for none."""
    images = suite.shared[model]
    return percent(np.all([judged.on(images) for judged in cases], axis=0)) if cases else float("nan")
