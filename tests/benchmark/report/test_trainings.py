"""Several trainings of one defense: means, intervals, and ranks that hold between trainings."""

from collections.abc import Callable

import pytest

from benchmark.report.leaderboard import legend
from benchmark.report.score import SuiteScores
from benchmark.report.trainings import trained_as, training_table

Scores = Callable[..., SuiteScores]


def cells(**counts: tuple[int, ...]) -> dict[tuple[str, str, str], int]:
    """The trainings of some models, the first without a seed in its name."""
    return {
        (f"{model}-seed{seed}" if seed else model, "pgd-20", ""): count
        for model, of in counts.items()
        for seed, count in enumerate(of)
    }


@pytest.mark.parametrize(
    ("name", "base"),
    [("madry", "madry"), ("madry-seed1", "madry"), ("madry-seed12-last", "madry-last"), ("seed1", "seed1")],
)
def test_a_seed_is_no_part_of_what_was_trained(name: str, base: str) -> None:
    assert trained_as(name) == base


def test_means_deviations_and_each_training_are_told(scores_of: Scores) -> None:
    (row,) = training_table(scores_of(cells(one=(200, 220, 240)))).to_dict("records")
    assert (row["model"], row["trainings"], row["n"]) == ("one", 3, 400)
    assert (row["worst case"], row["std"]) == (pytest.approx(55.0), pytest.approx(5.0))
    assert row["ci_high"] - row["worst case"] == pytest.approx(4.3027 * 5 / 3**0.5, rel=1e-4)
    assert row["each"] == "50.00 55.00 60.00"
    assert (row["clean"], row["clean_std"]) == (97.5, 0.0)


def test_models_whose_trainings_overlap_share_a_rank_and_others_do_not(scores_of: Scores) -> None:
    table = training_table(scores_of(cells(low=(100, 104, 96), high=(300, 304, 296), near=(310, 290, 270))))
    assert dict(zip(table["model"], table["rank"], strict=True)) == {"high": 1, "near": 1, "low": 3}


def test_two_trainings_tell_nothing_apart(scores_of: Scores) -> None:
    table = training_table(scores_of(cells(low=(100, 101), high=(300, 301))))
    assert table["rank"].tolist() == [1, 1]


def test_one_training_of_each_model_is_no_table_and_the_leaderboard_says_so(scores_of: Scores) -> None:
    suite = scores_of(cells(one=(200,), two=(300,)))
    assert training_table(suite).empty
    board = suite.scores
    assert "One training of each model" in legend(suite, board)
    assert "see trainings.md" in legend(scores_of(cells(one=(200, 210))), board)
