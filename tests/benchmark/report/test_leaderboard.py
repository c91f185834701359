"""Ranks: shared where the images cannot tell two models apart, and what the leaderboard shows of a user's own model."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from benchmark.report.leaderboard import board_ranks, p_of_difference
from benchmark.report.score import SuiteScores
from benchmark.stats.shares import Bools
from model_zoo.model_spec import ModelSpec

N = 100


def of(worst: Mapping[str, Bools], shared: Mapping[str, range] | None = None) -> SuiteScores:
    """A suite of which only the worst cases matter."""
    images = {model: np.array((shared or {}).get(model, range(N)), dtype=np.int64) for model in worst}
    return SuiteScores("digits", "any", pd.DataFrame(), pd.DataFrame(), worst, images, [], [])


def first(count: int, *, n: int = N) -> Bools:
    return np.arange(n) < count


def test_a_model_that_the_images_tell_apart_has_a_rank_of_its_own() -> None:
    suite = of({"a": first(80), "b": first(70), "c": first(40)})
    assert p_of_difference(suite, "a", "b") == pytest.approx(2 * 0.5**10)
    assert board_ranks(suite, ["a", "b", "c"]) == [1, 2, 3]


def test_models_that_mcnemar_does_not_tell_apart_share_a_rank() -> None:
    suite = of({"a": first(80), "b": first(76), "c": first(60)})
    assert p_of_difference(suite, "a", "b") == pytest.approx(0.125)
    assert board_ranks(suite, ["a", "b", "c"]) == [1, 1, 3]


def test_the_test_is_paired_so_the_same_accuracies_may_or_may_not_be_told_apart() -> None:
    nested, crossed = first(60), np.roll(first(60), 40)
    assert p_of_difference(of({"a": first(70), "b": nested}), "a", "b") < 0.05  # ten images, all one way
    assert p_of_difference(of({"a": first(70), "b": crossed}), "a", "b") > 0.05  # forty against thirty


def test_p_is_that_of_scipys_binomial_test_on_the_images_that_one_alone_breaks() -> None:
    draws = np.random.default_rng(0)
    one, other = draws.random(N) < 0.7, draws.random(N) < 0.5
    won, lost = int((one & ~other).sum()), int((other & ~one).sum())
    expected = binomtest(won, won + lost).pvalue
    assert p_of_difference(of({"a": one, "b": other}), "a", "b") == pytest.approx(expected)


def test_models_are_compared_on_the_images_that_both_worst_cases_are_over() -> None:
    suite = of({"a": first(N), "b": first(0, n=20)}, {"a": range(N), "b": range(0, N, 5)})
    assert p_of_difference(suite, "a", "b") == pytest.approx(2 * 0.5**20)


def test_the_folder_of_a_users_own_file_is_not_shown() -> None:
    spec = ModelSpec(
        "mine",
        suites=("digits",),
        dataset="digits",
        architecture="/home/me/secret/mine.py:make",
        defense="",
        checkpoint="",
        sha256="a" * 64,
        code="make@0",
    )
    assert spec.network == "mine.py:make"
    assert replace(spec, architecture="package.module:make").network == "package.module:make"
    assert replace(spec, architecture="digits-cnn", code="").network == "digits-cnn"
