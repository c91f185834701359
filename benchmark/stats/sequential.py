"""Tests that may be looked at again and again while images come in, and keep the error rates that they state.

Images come in a seeded random order and are looked at in growing batches. Two questions are asked at every look:

- Is the change real? `sequential_p`: an exact binomial test of the pairs that differ, its level spent over the looks.
- Is a change beyond the tolerance still to be feared? `excludes`: a bet against it, image by image, whose winnings
  bound the probability of being wrong at whatever look it is cashed.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc
from scipy.stats import binom

FIRST_LOOK = 50
GROWTH = 2
CROWDED = 2.5
"""A look that comes up to this many times sooner than a wanted one is left out: each costs all steps of the attack."""
STAKES = {1.0: 0.5, 0.75: 0.2, 0.5: 0.15, 0.25: 0.15}
"""Parts of the capital bet at each image (all or less of what may be lost), and how the capital is split among them."""

SMALLEST_P = 1e-12


def looks(n: int, wanted: int) -> list[int]:
    """How many of n images have come in at each look: 50, then twice as many each time, at last all of them.

    Args:
        wanted: one of the looks, in place of those shortly before it.
    """
    counts, count = {wanted, n}, FIRST_LOOK
    while count < n:
        if not wanted / CROWDED < count < wanted:
            counts.add(count)
        count *= GROWTH
    return sorted(counts)


def spent(share: float) -> float:
    """The part of the error rate that may be spent by the time this share of the images has come in.

    Source: the power family of Kim and DeMets, Biometrika 74 (1987), with exponent 2; spending functions are Lan and
        DeMets's, Biometrika 70 (1983).
    """
    return share**2


def sequential_p(
    successes: Sequence[int],
    trials: Sequence[int],
    counts: Sequence[int],
    n: int,
    null: float,
    *,
    wanted: float = 1.0,
    largest: float = 1.0,
) -> float:
    """The p-value of "each trial succeeds with probability at most `null`", valid at whatever look it is read.

    It is the smallest level at which the group-sequential test has rejected at some look so far: at each look, the test
    rejects the most successes whose probability, with no rejection before, is within what may be spent since the last
    look. What a look may spend goes to the next one where there are so few trials that it could not reject at the level
    `wanted`; the last one spends all that is left. That depends on the number of trials alone, and nothing else that is
    unspent is carried over, so a larger level rejects whatever a smaller one does, and the p-value may be combined with
    others by Holm's method.

    Args:
        successes, trials: so far, at each look; for McNemar's test the pairs that differ, and `null` one half.
        counts: images that have come in at each look, of n in the end.
        wanted: the level at which a rejection is of use.
        largest: p-values above this need not be known, and are given as 1.

    Source: spending functions as in `spent`, applied to the exact binomial distribution; p-values of sequential tests
        by Liu and Anderson, Journal of the American Statistical Association 103 (2008).
    """
    if bdtrc(np.array(successes) - 1.0, trials, null).min() > largest:  # binom.sf, without its checks
        return 1.0
    budgets = _budgets(trials, [spent(count / n) for count in counts], null, wanted)
    low, high = math.log(SMALLEST_P), 0.0
    if not _rejects(successes, trials, budgets, null):
        return 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if _rejects(successes, trials, math.exp(middle) * budgets, null):
            high = middle
        else:
            low = middle
    return math.exp(high)


def rejected_from(
    trials: Sequence[int], counts: Sequence[int], n: int, null: float, *, level: float
) -> NDArray[np.int64]:
    """(looks,) the successes from which on the test of `sequential_p` rejects at each look where it has not before.

    Args:
        level: at which it rejects, which is also the level wanted of it.
    """
    budgets = level * _budgets(trials, [spent(count / n) for count in counts], null, level)
    return np.array(list(_critical(trials, budgets, null)))


def share_interval(
    successes: Sequence[int], trials: Sequence[int], counts: Sequence[int], n: int, *, wanted: float, error: float
) -> tuple[float, float]:
    """An interval of the probability of success that misses with probability `error` at most, whatever look it is read.

    It has the probabilities that the test of `sequential_p` rejects on neither side at half of `error`.
    """
    budgets = _budgets(trials, [spent(count / n) for count in counts], 0.5, wanted) * error / 2
    failures = [total - count for count, total in zip(successes, trials, strict=True)]
    return _least(successes, trials, budgets), 1 - _least(failures, trials, budgets)


def _least(successes: Sequence[int], trials: Sequence[int], budgets: NDArray[np.float64]) -> float:
    """The smallest probability of success that is not rejected."""
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if _rejects(successes, trials, budgets, middle) else (low, middle)
    return low


def _budgets(trials: Sequence[int], shares: Sequence[float], null: float, wanted: float) -> NDArray[np.float64]:
    """(looks,) the part of the level that each may spend, by what may be spent until then."""
    budgets, gone = np.zeros(len(trials)), 0.0
    for look, (count, share) in enumerate(zip(trials, shares, strict=True)):
        if share == 1.0 or null**count <= wanted * (share - gone):
            budgets[look], gone = share - gone, share
    return budgets


def _rejects(successes: Sequence[int], trials: Sequence[int], budgets: NDArray[np.float64], null: float) -> bool:
    """Whether the test whose looks may spend these probabilities has rejected at one of them."""
    return any(seen >= least for seen, least in zip(successes, _critical(trials, budgets, null), strict=True))


def _critical(trials: Sequence[int], budgets: NDArray[np.float64], null: float) -> Iterator[int]:
    """At each look the successes from which on it rejects."""
    going_on, before = np.ones(1), 0  # the probability of each number of successes without a rejection so far
    for so_far, budget in zip(trials, budgets, strict=True):
        new = so_far - before
        going_on = np.convolve(going_on, _chances(new, null)) if new else going_on
        at_least = np.cumsum(going_on[::-1])[::-1]
        critical = int((at_least > budget).sum())
        yield critical
        going_on[critical:] = 0.0
        before = so_far


@functools.lru_cache(maxsize=4096)
def _chances(trials: int, null: float) -> NDArray[np.float64]:
    """(trials + 1,) the probability of each number of successes."""
    chances: NDArray[np.float64] = binom.pmf(np.arange(trials + 1), trials, null)
    return chances


def excludes(values: NDArray[np.float64], n: int, least: int) -> float:
    """A bound on the probability of values like these, if all n of them summed to `least` or more.

    Args:
        values: in [-1, 1], those drawn so far without replacement, in the order of drawing.

    Returns: a p-value that may be read at any time: one over the gambler's largest capital so far.
    """
    if values.sum() + n - len(values) < least:
        return 0.0  # it cannot come to that any more
    return float(bet_p(values, n, least)[-1])


def bet_p(values: NDArray[np.float64], n: int, least: int) -> NDArray[np.float64]:
    """(..., V + 1) the p-value of the bet of `excludes` before the first value and after each; of values (..., V)."""
    with np.errstate(over="ignore"):
        return 1 / np.maximum.accumulate(np.maximum(1.0, _capital(values, n, least)), axis=-1)


def soonest(n: int, least: int, error: float) -> int:
    """After how many values, if all of them are zero, `excludes` is at most `error`; n if never before."""
    enough = np.flatnonzero(_capital(np.zeros(n), n, least) * error >= 1)
    return int(enough[0]) if len(enough) else n


def _capital(values: NDArray[np.float64], n: int, least: int) -> NDArray[np.float64]:
    """What a gambler has before the first value and after each, who began with 1 and bets that each will be small.

    If the n values sum to `least` or more he cannot win on average, so his capital ever exceeds 1 / p with probability
    at most p. Once they cannot sum to that any more his capital says nothing, and stays as it was.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal
        Statistical Society B 86 (2024), section on sampling without replacement.
    """
    before = np.cumsum(values, axis=-1) - values
    mean = (least - before) / (n - np.arange(values.shape[-1]))  # the least that the next value can be on average
    is_open = np.logical_and.accumulate(mean < 1, axis=-1)
    lost = np.where(is_open, (values - mean) / np.where(is_open, 1 - mean, 1.0), 0.0)  # of what is staked
    capital = np.ones((*values.shape[:-1], values.shape[-1] + 1))
    capital[..., 1:] = sum(share * np.cumprod(1 - stake * lost, axis=-1) for stake, share in STAKES.items())
    return capital


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: comparing each with alpha errs in any of them with probability at most alpha.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(order) - np.arange(len(order))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p_values, dtype=float)[order]))
    return [float(p) for p in adjusted]
