"""The test of a gain beyond a margin errs no more often than it says, and sees what is plain."""

import numpy as np
import pytest

from benchmark.stats.gains import gain_p
from benchmark.stats.shares import mcnemar_one_sided


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("margin", [3.0, 10.0])
@pytest.mark.parametrize("beside", [0.0, 0.02, 0.2])
def test_a_gain_of_the_margin_is_seldom_taken_for_more(n: int, margin: float, beside: float) -> None:
    drawn = np.random.default_rng(0).multinomial(n, [beside + margin / 100, beside, 1 - 2 * beside - margin / 100], 400)
    rejected = np.mean([gain_p(int(alone), int(other), n, margin) <= 0.05 for alone, other, _ in drawn])
    assert rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(drawn))


def test_a_gain_that_is_plain_is_seen_and_none_is_not() -> None:
    assert gain_p(60, 0, 200, 3.0) < 0.001
    assert gain_p(60, 20, 200, 3.0) < 0.01
    assert gain_p(0, 60, 200, 3.0) == 1.0
    assert gain_p(5, 0, 200, 3.0) > 0.3


@pytest.mark.parametrize(("alone", "beside"), [(9, 0), (20, 8), (6, 6)])
def test_without_a_margin_it_is_no_bolder_than_mcnemar(alone: int, beside: int) -> None:
    assert gain_p(alone, beside, 200, 0.0) >= 0.9 * mcnemar_one_sided(alone, beside)
