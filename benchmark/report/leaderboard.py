"""The leaderboard of a suite as numbers: worst cases, intervals, ranks that the images can tell apart, caveats."""

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from benchmark.report.attack_flags import flag_table, raised_flags
from benchmark.report.bars import Bar, bars
from benchmark.report.flags import FLAGS, flag_names
from benchmark.report.score import SuiteScores, common_images
from benchmark.report.tiers import BLACK_BOX, black_box_worst_case
from benchmark.report.trainings import trainings_of
from benchmark.stats.ranks import SEPARATED, ranks
from benchmark.stats.shares import mcnemar, percent, wilson
from benchmark.suites.case import ADAPTIVE

FIRST = ("rank", "model", "defense", "architecture", "clean")
LAST = ("worst case", "ci_low", "ci_high", "flags", "n")
PROVEN = ("certified_acc", "certified_low", "certified_high", "unknown", "broken")
"""Columns that stand before those of `LAST` where something is certified of a model of the suite."""
PROVEN_NOTE = (
    "Certified: proven robust by some method of certified.csv, rounding of the float32 judge included; broken: under "
    "an attack, at a witness of a complete method, or when clean; unknown: neither."
)


def attacks_of(board: pd.DataFrame) -> list[str]:
    """The attacks that a leaderboard has a column of, in its order."""
    return [str(name) for name in board.columns if name not in (*FIRST, *PROVEN, BLACK_BOX, *LAST)]


def leaderboard(suite: SuiteScores) -> pd.DataFrame:
    """One row a model, most robust first; one column a white-box attack; the worst case over all that is stored.

    Returns: columns `FIRST`, the attacks, `BLACK_BOX` where a model saw an attack without its gradients, `LAST`;
        accuracies in percent; `n` images of both worst cases.
    """
    rows, compared = [], flag_table(suite)
    own = white(suite.scores).assign(shown=lambda scores: shown_accuracy(suite, scores))
    attacks = list(own["attack"].unique())
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
                "worst case": percent(worst),
                "ci_low": low,
                "ci_high": high,
                "flags": " ".join(
                    sorted(
                        {
                            *str(first["flags"]).split(),
                            *_incomplete(suite, str(model), attacks),
                            *raised_flags(compared, str(model)),
                            *suite.diagnosed.get(str(model), ()),
                        }
                    )
                ),
                "n": len(worst),
            }
        )
    board = pd.DataFrame(rows, columns=[*FIRST[1:], *LAST])
    board = board.join(own.pivot(index="model", columns="attack", values="shown"), on="model")
    board = board[[*FIRST[1:], *attacks, *LAST]]
    proven = bars(suite)
    if proven:
        for place, (name, part) in enumerate(zip(PROVEN, fields(Bar), strict=True), len(FIRST) - 1 + len(attacks)):
            values = [getattr(proven[model], part.name) if model in proven else None for model in board["model"]]
            board.insert(place, name, pd.Series(values, index=board.index, dtype=float))
    black_box = pd.Series([black_box_worst_case(suite, model) for model in board["model"]], board.index, dtype=float)
    if black_box.notna().any():
        board.insert(list(board.columns).index("worst case"), BLACK_BOX, black_box)
    board = board.sort_values(["worst case", "clean"], ascending=False, kind="stable")
    board.insert(0, "rank", board_ranks(suite, list(board["model"])))
    return board


def board_ranks(suite: SuiteScores, models: Sequence[str]) -> list[int]:
    """The rank of each model, given from the most robust to the least.

    Two are told apart by the paired exact McNemar test on the images that both worst cases are over.
    """
    return ranks(models, lambda leader, model: p_of_difference(suite, leader, model) < SEPARATED)


def p_of_difference(suite: SuiteScores, first: str, second: str) -> float:
    """The p of the exact McNemar test of two models' worst cases on the images that both are over."""
    one, other = suite.worst_case(first), suite.worst_case(second)
    images = common_images([one, other])
    robust, against = one.on(images), other.on(images)
    return mcnemar(int((against & ~robust).sum()), int((robust & ~against).sum()))


def formatted(board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard with each interval in one column."""
    shown = _with_interval(board, "worst case", "ci_low", "ci_high", "95% interval")
    if "certified_acc" not in shown.columns:
        return shown
    shown = _with_interval(shown, "certified_acc", "certified_low", "certified_high", "its 95% interval")
    return shown.rename(columns={"certified_acc": "certified"})


def _with_interval(board: pd.DataFrame, value: str, low: str, high: str, name: str) -> pd.DataFrame:
    """The table with the ends of an interval in one column behind its value."""
    ends = zip(board[low], board[high], strict=True)
    interval = ["-" if pd.isna(first) else f"{first:.2f}-{last:.2f}" for first, last in ends]
    shown = board.drop(columns=[low, high])
    shown.insert(list(shown.columns).index(value) + 1, name, interval)
    return shown


def legend(suite: SuiteScores, board: pd.DataFrame) -> str:
    """What a reader of the leaderboard must know."""
    used = sorted(flag_names(flag for flags in board["flags"] for flag in flags.split()))
    part = "" if suite.scores["n"].nunique() == 1 else ", on those n images that all of them have seen"
    worst = f"Worst case: over all attacks stored for the model, transfer included{part}; its 95% interval is Wilson's."
    ranked = (
        "Rank: shared with the best model above, unless an exact McNemar test on the same images tells the two "
        f"apart (p < {SEPARATED})."
    )
    several = max((len(names) for names in trainings_of(suite).values()), default=0) > 1
    trained = (
        "Between trainings: see trainings.md."
        if several
        else "One training of each model: a rank tells these weights apart, and says nothing of other trainings."
    )
    without_gradients = (
        ["Black-box worst case: over those of them that go without the model's gradients, on the same images."]
        if BLACK_BOX in board.columns
        else []
    )
    has_adaptive = any(entry.attack.endswith(ADAPTIVE) for entry in suite.entries)
    adaptive = [
        "Adaptive: crafted on a surrogate of the model that gives a gradient, judged on the model."
    ] * has_adaptive
    proven = [PROVEN_NOTE] * ("certified_acc" in board.columns)
    flags = [f"Flag `{flag}`: {FLAGS[flag]}." for flag in used]
    return " ".join([worst, *without_gradients, *adaptive, *proven, ranked, trained, *flags])


def white(scores: pd.DataFrame) -> pd.DataFrame:
    """The white-box rows of scores."""
    return scores[scores["source_model"] == ""]


def shown_accuracy(suite: SuiteScores, scores: pd.DataFrame) -> "pd.Series[float]":
    """The accuracies that the suite's tables read; an attack without a last iterate has one reading only."""
    own = scores["robust_acc"]
    return scores["robust_acc_last"].astype(float).fillna(own) if suite.reading == "last" else own


def _standard(attack: str) -> str:
    """The attack that another one stands for on models that answer at random; itself in general."""
    return "autoattack" if attack == "autoattack-rand" else attack


def _incomplete(suite: SuiteScores, model: str, attacks: Sequence[str]) -> list[str]:
    """What a model's worst case lacks beside others', given the white-box attacks of the whole table.

    No model lacks what is crafted on itself, nor an adaptive attack beside another one, or where it has no surrogate.
    AutoAttack's version for models that answer at random is as good as the other, each on its models.
    """
    own = {(_standard(entry.attack), entry.source_model) for entry in suite.entries if entry.model == model}
    crossed = {(entry.attack, entry.source_model) for entry in suite.entries if entry.source_model not in ("", model)}
    attacks = [_standard(attack) for attack in attacks if not attack.endswith(ADAPTIVE)]
    flags = {
        "fewer-attacks": bool({*((attack, "") for attack in attacks), *crossed} - own),
        "fewer-images": len(suite.worst[model]) < max(map(len, suite.worst.values())),
    }
    return [flag for flag, applies in flags.items() if applies]
