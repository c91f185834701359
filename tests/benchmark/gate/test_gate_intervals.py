"""Intervals that the gate reports."""

import numpy as np
import pytest

from benchmark.gate.intervals import change_interval, robust_interval, saved_interval
from benchmark.gate.rules import ROUNDING, Rules, against_baseline, against_canary, against_threshold, chance

RULES = Rules()


def test_an_interval_without_any_change_is_symmetric_and_wider_after_fewer_images() -> None:
    same = np.ones(500, np.bool_)
    widths = []
    for seen in (50, 219, 500):
        low, high = change_interval(same[:seen], same[:seen], 500, RULES, questions=1)
        assert low == pytest.approx(-high)
        widths.append(high)
    assert widths[0] > widths[1] > widths[2] > 0


@pytest.mark.parametrize("worse", [10, 12, 14, 16, 18, 20, 25])
def test_an_interval_excludes_zero_where_the_test_rejects(worse: int) -> None:
    order = np.random.default_rng(worse).permutation(500)
    before, now = (np.arange(500) < worse)[order], (np.arange(500) >= 490)[order]
    low, high = change_interval(before, now, 500, RULES, questions=1)
    assert low < (10 - worse) / 5 < high
    assert (high < 0) == (chance(against_baseline(before, now, RULES), 500, RULES) <= 0.02)


def test_an_interval_of_robust_accuracy_agrees_with_the_test_of_a_threshold() -> None:
    now = np.random.default_rng(0).permutation(np.arange(500) < 200)
    low, high = robust_interval(now, 500, RULES, questions=1)
    assert low < 40 < high
    for threshold in (high - 0.1, high + 0.1):
        rejected = chance(against_threshold(now, threshold), 500, RULES) <= 0.025
        assert rejected == (threshold > high)


@pytest.mark.parametrize("saved", [1, 2, 3, 4, 5, 6, 8])
def test_an_interval_of_saved_images_agrees_with_the_test_of_a_canary(saved: int) -> None:
    order = np.random.default_rng(saved).permutation(500)
    before, now = (np.arange(500) < 300)[order], (np.arange(500) < 300 + saved)[order]
    low, high = saved_interval(before, now, 500, RULES, questions=1)
    assert low < saved / 5 < high
    assert (low > 100 * ROUNDING) == (chance(against_canary(before, now), 500, RULES) <= 0.025)
