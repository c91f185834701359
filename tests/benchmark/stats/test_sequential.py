"""Tests under repeated looks: error rates by enumeration and by simulation, agreement with the fixed-sample tests."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from benchmark.stats.sequential import excludes, holm, looks, sequential_p, share_interval, soonest, spent


def test_looks_grow_and_end_with_all_images() -> None:
    assert looks(500, 219) == [50, 219, 400, 500]
    assert looks(1000, 270) == [50, 100, 270, 400, 800, 1000]
    assert looks(20, 20) == [20]
    assert looks(50, 50) == [50]


def test_the_whole_level_is_spent_at_the_end_and_little_at_first() -> None:
    assert (spent(0.0), spent(1.0)) == (0.0, 1.0)
    assert spent(0.1) < 0.1 * spent(1.0)


def test_with_one_look_the_p_value_is_that_of_the_exact_test() -> None:
    for wins, trials in ((8, 8), (12, 15), (30, 40)):
        assert sequential_p([wins], [trials], [50], 50, 0.5) == pytest.approx(binom.sf(wins - 1, trials, 0.5), rel=1e-6)


def test_no_level_is_exceeded_whatever_the_coins_show() -> None:
    """Every sequence of ten fair coins, looked at three times: how often is the p-value at most a level?"""
    counts, trials = [4, 7, 10], [4, 7, 10]
    seen = [np.cumsum(coins)[[3, 6, 9]].tolist() for coins in itertools.product((0, 1), repeat=10)]
    for wanted in (1.0, 0.1, 0.01, 0.0001):
        p_values = np.array([sequential_p(s, trials, counts, 10, 0.5, wanted=wanted) for s in seen])
        for level in (0.005, 0.01, 0.05, 0.1, 0.3):
            assert np.mean(p_values <= level * (1 + 1e-6)) <= level


def test_looks_that_could_not_reject_leave_their_level_to_later_ones() -> None:
    won = [1, 4, 8, 10]
    p = sequential_p(won, won, [50, 219, 400, 500], 500, 0.5, wanted=0.0025)
    assert p == pytest.approx(0.5**10, rel=1e-6)
    assert sequential_p(won, won, [50, 219, 400, 500], 500, 0.5) > 2 * p


def test_an_interval_of_a_share_misses_rarely_whatever_look_it_is_read_at() -> None:
    """Every sequence of ten coins that fall on one side with a probability of 0.7, weighted by its own."""
    counts, error = [4, 7, 10], 0.2
    missed = 0.0
    for coins in itertools.product((0, 1), repeat=10):
        seen = np.cumsum(coins)[[3, 6, 9]].tolist()
        ends = [share_interval(seen[:k], counts[:k], counts[:k], 10, wanted=1.0, error=error) for k in range(1, 4)]
        if any(not low <= 0.7 <= high for low, high in ends):
            missed += 0.7 ** sum(coins) * 0.3 ** (10 - sum(coins))
    assert 0.0 < missed <= error


def test_another_look_never_raises_a_p_value() -> None:
    draws = np.random.default_rng(0)
    counts = [25, 50, 100, 200, 400]
    for _ in range(20):
        wins = np.cumsum(draws.random(400) < 0.6)
        p = [
            sequential_p([int(wins[c - 1]) for c in counts[:k]], counts[:k], counts[:k], 400, 0.5) for k in range(1, 6)
        ]
        assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(p))


def test_a_bet_against_what_is_true_rarely_wins() -> None:
    """60 images of 200 are worse and 50 better, so the excess is 10: how often do looks exclude 10 or more?"""
    values = np.array([1.0] * 60 + [-1.0] * 50 + [0.0] * 90)
    draws = np.random.default_rng(0)
    wrong = sum(
        min(excludes(drawn[:count], 200, 10) for count in looks(200, 100)[:-1]) <= 0.05
        for drawn in (draws.permutation(values) for _ in range(1000))
    )
    assert binom.cdf(wrong, 1000, 0.05) < 0.9999  # no evidence of more than one in twenty


def test_without_any_change_the_bet_is_nearly_as_good_as_the_exact_test() -> None:
    needed = soonest(500, 6, 0.05)
    exact = next(m for m in range(500) if hypergeom.pmf(0, 500, 6, m) <= 0.05)
    assert exact <= needed <= 1.25 * exact
    assert excludes(np.zeros(needed), 500, 6) <= 0.05 < excludes(np.zeros(needed - 1), 500, 6)


def test_what_cannot_come_about_any_more_is_excluded_for_certain() -> None:
    assert excludes(np.full(50, -1.0), 100, 1) == 0.0
    assert excludes(np.concatenate([np.zeros(95), np.full(4, -1.0)]), 100, 1) == 0.0
    assert excludes(np.full(50, 1.0), 100, 1) == 1.0


def test_holm_multiplies_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
