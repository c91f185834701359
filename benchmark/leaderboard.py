"""The leaderboard of a suite as numbers: worst cases, intervals, ranks that the images can tell apart, caveats."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmark.score import Judged, SuiteScores, common_images, mcnemar, percent, wilson

FLAGS = {
    "probabilities": "the model returns probabilities, not logits: gradient attacks may be too weak",
    "randomized": "two passes over the same images differ: judged by its mean probabilities over several; batch size "
    "and device may change its numbers",
    "dropout": "a dropout layer is left on",
    "train-mode": "a pass over images changes the model: its numbers depend on what was asked before",
    "batch-dependent": "an image's logits depend on the others of its batch",
    "normalisation": "it does better on images normalised once more, or once less: its own may be missing or doubled",
    "vanishing-gradients": "for most images cross-entropy has no gradient to follow: such attacks tell little",
    "zero-gradients": "most images have no gradient to follow: gradient attacks tell little",
    "transfer-beats-white-box": "an attack does better from another model: a sign of masked gradients",
    "fewer-images": "the worst case is over fewer images than that of other models",
    "fewer-attacks": "not all attacks of this table were run: its worst case is over fewer",
}
SEPARATED = 0.05
"""Below this p of the exact McNemar test two models are told apart."""

FIRST = ("rank", "model", "defense", "architecture", "clean")
LAST = ("worst case", "ci_low", "ci_high", "flags", "n")


def leaderboard(suite: SuiteScores) -> pd.DataFrame:
    """One row a model, most robust first; one column a white-box attack; the worst case over all that is stored.

    Returns: columns `FIRST`, the attacks, `LAST`; accuracies in percent; `n` images of the worst case.
    """
    rows = []
    attacks = list(dict.fromkeys(white(suite.scores)["attack"]))
    for model, scores in suite.scores.groupby("model", sort=False):
        worst = suite.worst[str(model)]
        low, high = wilson(int(worst.sum()), len(worst))
        first = scores.sort_values("n", ascending=False, kind="stable").iloc[0]
        rows.append(
            {
                "model": model,
                "defense": first["defense"],
                "architecture": first["architecture"],
                "clean": first["clean_acc"],
                **{str(s["attack"]): s[shown_column(suite, s)] for _, s in white(scores).iterrows()},
                "worst case": percent(worst),
                "ci_low": low,
                "ci_high": high,
                "flags": " ".join(sorted({*str(first["flags"]).split(), *_derived_flags(suite, str(model), attacks)})),
                "n": len(worst),
            }
        )
    columns = [*FIRST[1:], *attacks, *LAST]
    board = pd.DataFrame(rows, columns=columns).sort_values(["worst case", "clean"], ascending=False, kind="stable")
    board.insert(0, "rank", ranks(suite, list(board["model"])))
    return board


def ranks(suite: SuiteScores, models: Sequence[str]) -> list[int]:
    """The rank of each model, given from the most robust to the least.

    A model shares the rank of the best one before it, unless the paired exact McNemar test on the images that both
    worst cases are over tells the two apart; then its rank is its place.
    """
    found: list[int] = []
    leader = ""
    for place, model in enumerate(models, 1):
        if not leader or p_of_difference(suite, leader, model) < SEPARATED:
            leader = model
            found.append(place)
        else:
            found.append(found[-1])
    return found


def p_of_difference(suite: SuiteScores, first: str, second: str) -> float:
    """The p of the exact McNemar test of two models' worst cases on the images that both are over."""
    one, other = (
        Judged(suite.shared[model], suite.shared[model], suite.worst[model], suite.worst[model])
        for model in (first, second)
    )
    images = common_images([one, other])
    robust, against = one.on(images), other.on(images)
    return mcnemar(int((against & ~robust).sum()), int((robust & ~against).sum()))


def for_people(board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard with its interval in one column."""
    interval = [f"{low:.2f}-{high:.2f}" for low, high in zip(board["ci_low"], board["ci_high"], strict=True)]
    shown = board.drop(columns=["ci_low", "ci_high"])
    shown.insert(list(shown.columns).index("worst case") + 1, "95% interval", interval)
    return shown


def legend(suite: SuiteScores, board: pd.DataFrame) -> str:
    """What a reader of the leaderboard must know."""
    used = sorted({flag for flags in board["flags"] for flag in flags.split()})
    part = "" if suite.scores["n"].nunique() == 1 else ", on those n images that all of them have seen"
    worst = f"Worst case: over all attacks stored for the model, transfer included{part}; its 95% interval is Wilson's."
    ranked = (
        "Rank: shared with the best model above, unless an exact McNemar test on the same images tells the two "
        f"apart (p < {SEPARATED})."
    )
    return " ".join([worst, ranked, *(f"Flag `{flag}`: {FLAGS[flag]}." for flag in used)])


def white(scores: pd.DataFrame) -> pd.DataFrame:
    """The white-box rows of scores."""
    return scores[scores["source_model"] == ""]


def shown_column(suite: SuiteScores, score: "pd.Series[Any]") -> str:
    """The column that the suite's tables read; an attack without a last iterate has one reading only."""
    return "robust_acc_last" if suite.reading == "last" and pd.notna(score["robust_acc_last"]) else "robust_acc"


def _derived_flags(suite: SuiteScores, model: str, attacks: Sequence[str]) -> list[str]:
    """Caveats that only the rows of a model together show, given the white-box attacks of the whole table."""
    own = [pair for pair in zip(suite.entries, suite.judged, strict=True) if pair[0]["model"] == model]
    open_box = {entry["attack"]: judged for entry, judged in own if not entry["source_model"]}
    flags = {
        "fewer-attacks": bool(set(attacks) - set(open_box)),
        "fewer-images": len(suite.worst[model]) < max(map(len, suite.worst.values())),
        "transfer-beats-white-box": any(
            _is_beaten(open_box[entry["attack"]], judged)
            for entry, judged in own
            if entry["source_model"] and entry["attack"] in open_box
        ),
    }
    return [flag for flag, applies in flags.items() if applies]


def _is_beaten(open_box: Judged, transferred: Judged) -> bool:
    """Whether an attack leaves fewer images standing from another model, of those that both have seen."""
    images = common_images([open_box, transferred])
    return bool(np.sum(transferred.on(images)) < np.sum(open_box.on(images)))
