"""Several trainings of one defense: how they differ, and which defenses that tells apart."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from benchmark.report.score import SuiteScores, common_images
from benchmark.stats.effects import FEWEST, Values, effect
from benchmark.stats.ranks import SEPARATED, ranks
from benchmark.stats.shares import percent

SEED_SUFFIX = re.compile(r"-seed\d+(?=(-last)?$)")
"""In the name of a model that was trained with another seed: `train --name trades-b6-seed1 --seed 1`."""
COLUMNS = ("rank", "model", "trainings", "clean", "clean_std", "worst case", "std", "ci_low", "ci_high", "each", "n")


def trained_as(model: str) -> str:
    """The name of a model without its seed."""
    return SEED_SUFFIX.sub("", model)


def trainings_of(suite: SuiteScores) -> Mapping[str, Sequence[str]]:
    """The trainings of each model, by its name without a seed, in display order."""
    found: dict[str, list[str]] = {}
    for model in suite.worst:
        found.setdefault(trained_as(model), []).append(model)
    return found


def training_table(suite: SuiteScores) -> pd.DataFrame:
    """One row a model that was trained several times, the most robust first; empty where there is none.

    A model shares the rank of the best one before it, unless the two-sided p of their difference, between images and
    between trainings (`effect`), is small; with fewer than `FEWEST` trainings it tells nothing apart.

    Returns: means and sample standard deviations over trainings in percent, of the clean accuracy and the worst case;
        a 95% t interval of the mean worst case; `each` training's worst case; over the n images all of them have seen.
    """
    several = {model: names for model, names in trainings_of(suite).items() if len(names) > 1}
    if not several:
        return pd.DataFrame()
    worst = {name: suite.worst_case(name) for names in several.values() for name in names}
    images = common_images(list(worst.values()))
    robust = {
        model: np.stack([worst[name].on(images).astype(float) for name in names]) for model, names in several.items()
    }
    clean = {entry.model: judged.clean for entry, judged in zip(suite.entries, suite.judged, strict=True)}
    rows = [
        _row(model, robust[model], np.array([percent(clean[name].on(images)) for name in names]))
        for model, names in several.items()
    ]
    table = pd.DataFrame(rows).sort_values(["worst case", "clean"], ascending=False, kind="stable")
    table.insert(
        0, "rank", ranks(list(table["model"]), lambda leader, model: _told_apart(robust[leader], robust[model]))
    )
    return table[list(COLUMNS)]


def _row(model: str, robust: Values, clean: Values) -> dict[str, Any]:
    each = [percent(row > 0) for row in robust]
    std = float(np.std(each, ddof=1))
    reach = float(t.ppf(0.975, len(each) - 1)) * std / math.sqrt(len(each))
    return {
        "model": model,
        "trainings": len(each),
        "clean": float(clean.mean()),
        "clean_std": float(np.std(clean, ddof=1)),
        "worst case": float(np.mean(each)),
        "std": std,
        "ci_low": float(np.mean(each)) - reach,
        "ci_high": float(np.mean(each)) + reach,
        "each": " ".join(f"{accuracy:.2f}" for accuracy in each),
        "n": robust.shape[1],
    }


def _told_apart(first: Values, second: Values) -> bool:
    difference = effect(first, second, paired=False)
    return difference.over_trainings and 2 * min(difference.p_above(0), difference.p_below(0)) < SEPARATED


def trainings_note() -> str:
    """What a reader of the table must know."""
    return (
        "Means over trainings with other seeds; std is the sample's standard deviation, the interval Student's. Rank: "
        f"shared with the best model above, unless a test of the difference between images and between trainings tells "
        f"the two apart (p < {SEPARATED}), which takes {FEWEST} trainings a side."
    )
