"""Intervals that the gate reports: valid at every look, and of one mind with its tests."""

import numpy as np
from scipy.stats import binomtest

from benchmark.gate.rules import Rules, schedule
from benchmark.stats.sequential import share_interval, spent
from benchmark.stats.shares import Bools

ERROR = 0.05
OF_CHANGED = 0.2
"""The part of the error that is for the share of images that change; the rest is for how many of them get worse."""


def change_interval(before: Bools, now: Bools, n: int, rules: Rules, *, questions: int) -> tuple[float, float]:
    """A 95% interval of the change of robust accuracy to be expected, in points, that is valid at every look.

    It excludes zero exactly where the sequential McNemar test of either side has a p-value of at most 0.02: it is made
    of an interval of the probability that a changed image is one for the worse, which that test inverts, and one of the
    share of images that change (Clopper and Pearson), joined by Bonferroni's inequality.

    Args:
        before, now: (seen,) bool, in the order in which the n images come in.
        questions: of the run, as in `chance`.
    """
    changed, worse = before ^ now, before & ~now
    theta = _shares(worse, changed, n, rules, questions, error=(1 - OF_CHANGED) * ERROR)
    looked = [count for count in schedule(n, rules) if count <= len(now)]
    newly = np.diff([0.0, *(spent(count / n) for count in looked)])[-1]
    level = 1 - OF_CHANGED * ERROR * float(newly)
    share = binomtest(int(changed.sum()), len(now)).proportion_ci(confidence_level=level, method="exact")

    low, high = 1 - 2 * theta[1], 1 - 2 * theta[0]  # better minus worse, of those that change
    return (
        100 * low * float(share.high if low < 0 else share.low),
        100 * high * float(share.high if high > 0 else share.low),
    )


def saved_interval(before: Bools, now: Bools, n: int, rules: Rules, *, questions: int) -> tuple[float, float]:
    """A 95% interval, in percent of all images, of those that the attack broke and breaks no more.

    Valid at every look; it inverts the test of a canary.
    """
    low, high = _shares(~before & now, np.ones_like(now), n, rules, questions, error=ERROR)
    return 100 * low, 100 * high


def robust_interval(now: Bools, n: int, rules: Rules, *, questions: int) -> tuple[float, float]:
    """A 95% interval of robust accuracy in percent, valid at every look, that inverts the test of a threshold."""
    low, high = _shares(now, np.ones_like(now), n, rules, questions, error=ERROR)
    return 100 * low, 100 * high


def _shares(chosen: Bools, among: Bools, n: int, rules: Rules, questions: int, *, error: float) -> tuple[float, float]:
    counts = [count for count in schedule(n, rules) if count <= len(chosen)]
    successes = [int(chosen[:count].sum()) for count in counts]
    trials = [int(among[:count].sum()) for count in counts]
    return share_interval(successes, trials, counts, n, wanted=rules.alpha / questions, error=error)
