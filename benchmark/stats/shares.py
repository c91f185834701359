"""Shares of images: their intervals, and how two of them on the same images are told apart."""

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

Bools = NDArray[np.bool_]


@functools.lru_cache(maxsize=100_000)  # scipy computes the test's p along with it, which takes a millisecond
def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share, in percent."""
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of the exact McNemar test: who breaks an image that one alone breaks is a fair coin."""
    disagreements = only_first + only_second
    return float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


def mcnemar_one_sided(only_first: int, only_second: int) -> float:
    """The p-value of the one-sided exact McNemar test: of images that one alone breaks, the first has half at most."""
    return float(binom.sf(only_first - 1, only_first + only_second, 0.5))


def three_digits(p: float) -> float:
    """A p-value as tables have it, to three significant digits."""
    return float(f"{p:.3g}")


def percent(flags: Bools) -> float:
    """The share of True, in percent."""
    return 100 * float(np.mean(flags))


def difference_interval(only_first: int, only_second: int, n: int, *, error: float = 0.05) -> tuple[float, float]:
    """An interval, in percent, of the share of images that the second alone breaks minus that of the first alone.

    It misses with probability `error` at most: two Clopper-Pearson intervals that miss half as often each, joined by
    Bonferroni's inequality; conservative, never of width zero.
    """
    level = 1 - error / 2
    bounds = [
        binomtest(count, n).proportion_ci(confidence_level=level, method="exact") for count in (only_first, only_second)
    ]
    return 100 * float(bounds[1].low - bounds[0].high), 100 * float(bounds[1].high - bounds[0].low)
