"""Differences between images and between trainings: their size, their intervals, and how often they err."""

import numpy as np
import pytest
from scipy.stats import norm

from benchmark.stats.effects import Values, effect

N = 400


def training(rng: np.random.Generator, accuracy: float) -> Values:
    """(1, N) which images one training classifies correctly."""
    return (rng.random((1, N)) < accuracy).astype(float)


def test_with_one_training_a_side_the_interval_is_bonett_and_prices() -> None:
    first, second = np.zeros((1, 100)), np.zeros((1, 100))
    first[0, :30] = 1  # 18 of these are the first's alone
    second[0, 12:40] = 1  # and 10 of these the second's
    found = effect(first, second, paired=False)
    one, other = 13 / 102, 11 / 102
    assert found.points == pytest.approx(2.0)
    assert found.centre == pytest.approx(100 * (one - other))
    by_hand = 100 * np.sqrt((one + other - (one - other) ** 2) / 102)
    assert found.error == pytest.approx(by_hand, rel=0.01)
    low, high = found.interval()
    assert (high - low) / 2 == pytest.approx(norm.ppf(0.975) * by_hand, rel=0.03)
    assert not found.over_trainings


def test_two_models_that_agree_on_all_images_still_have_an_interval() -> None:
    same = np.ones((1, 50))
    low, high = effect(same, same, paired=False).interval()
    assert low < 0 < high
    assert 3 < high < 8


def test_the_p_values_are_those_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    found = effect(training(rng, 0.7), training(rng, 0.5), paired=False)
    low, high = found.interval()
    assert found.p_above(low) == pytest.approx(0.025)
    assert found.p_below(high) == pytest.approx(0.025)
    assert found.p_above(0) + found.p_below(0) == pytest.approx(1)


def test_three_trainings_a_side_count_how_trainings_differ_and_two_do_not() -> None:
    rng = np.random.default_rng(0)
    apart = [np.concatenate([training(rng, accuracy) for accuracy in of]) for of in ((0.4, 0.6, 0.8), (0.5, 0.5, 0.5))]
    over = effect(*apart, paired=False)
    few = effect(apart[0][:2], apart[1][:2], paired=False)
    assert over.over_trainings
    assert not few.over_trainings
    assert over.error > 3 * few.error
    assert over.freedom < 4


def test_trainings_that_differ_alike_on_both_sides_are_told_apart_by_pairs_alone() -> None:
    rng = np.random.default_rng(0)
    second = np.concatenate([training(rng, accuracy) for accuracy in (0.3, 0.5, 0.7)])
    first = np.maximum(second, rng.random((3, N)) < 0.1)
    assert effect(first, second, paired=True).p_above(0) < 0.03
    assert effect(first, second, paired=False).p_above(0) > 0.2


@pytest.mark.parametrize("paired", [False, True])
def test_a_difference_that_is_none_is_rarely_found_though_trainings_differ(paired: bool) -> None:
    rng = np.random.default_rng(1)
    errors = 0
    for _ in range(1000):
        sides = [
            np.concatenate([training(rng, accuracy) for accuracy in rng.normal(0.5, 0.03, size=3)]) for _ in range(2)
        ]
        found = effect(sides[0], sides[1], paired=paired)
        errors += min(found.p_above(0), found.p_below(0)) < 0.025
    assert errors <= 60  # 5% of 1,000, and 1.5 standard deviations more
