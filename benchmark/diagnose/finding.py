"""From measurements to outcomes: a check fails where its figure is beyond its margin, and no chance explains it."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom

from benchmark.stats.gains import gain_p
from benchmark.stats.sequential import holm
from benchmark.stats.shares import three_digits
from benchmark.store.diagnosis import CANNOT_TELL, FAILS, PASSES, Finding

SIGNIFICANT = 0.05
"""The family-wise error rate of the checks of one model."""


@dataclass(frozen=True)
class Measured:
    """What one check measured, before the correction for the other checks.

    Args:
        check: its name.
        figure: what was measured; None where nothing could be.
        margin: beyond which it is a failure, if chance does not explain it.
        p: of the test that asks whether it does; None for a fact, which no chance explains.
        measured: the figure in words.
        least_p: the least p that the test could have come to with as many images. Where not even that is significant
            the check could not have failed, and a figure within the margin says nothing.
    """

    check: str
    figure: float | None
    margin: float | None
    p: float | None
    measured: str
    least_p: float = 0.0


def findings(measured: Sequence[Measured]) -> list[Finding]:
    """The outcomes of all checks of one model, corrected for their number by Holm's method."""
    tested = [one for one in measured if one.p is not None]
    corrected = dict(zip([one.check for one in tested], holm([one.p or 0.0 for one in tested]), strict=True))
    return [_finding(one, corrected.get(one.check), len(tested)) for one in measured]


def _finding(one: Measured, p_holm: float | None, tests: int) -> Finding:
    def digits(p: float | None) -> float | None:
        return None if p is None else three_digits(p)

    figure = None if one.figure is None else round(one.figure, 4)
    return Finding(
        one.check, _outcome(one, p_holm, tests), figure, one.margin, digits(one.p), digits(p_holm), one.measured
    )


def _outcome(one: Measured, p_holm: float | None, tests: int) -> str:
    if one.margin is None:
        return "" if one.figure is not None else CANNOT_TELL
    if one.figure is None:
        return CANNOT_TELL
    if one.figure <= one.margin:
        return PASSES if one.p is None or one.least_p * tests < SIGNIFICANT else CANNOT_TELL
    return FAILS if p_holm is None or p_holm < SIGNIFICANT else CANNOT_TELL


def share_check(check: str, count: int, n: int, margin: float, words: str) -> Measured:
    """That of n images no more than a share, the margin in percent, is counted; it cannot tell of none."""
    if not n:
        return unknown(check, "there is no image to look at")
    p, least = share_p(count, n, margin), share_p(n, n, margin)
    return Measured(check, 100 * count / n, margin, p, words, least)


def gain_check(
    check: str, alone: int, beside: int, n: int, margin: float, words: str, *, comparisons: int = 1
) -> Measured:
    """That one run breaks no more of n images than another one, by a margin in percent of them.

    Args:
        alone, beside: images that the one run alone breaks, and the other alone.
        comparisons: how many such pairs the check chose this one of, which Bonferroni's inequality corrects for.
    """
    if not n:
        return unknown(check, "there is no image to look at")
    p, least = gain_p(alone, beside, n, margin), gain_p(n, 0, n, margin)
    return Measured(check, 100 * (alone - beside) / n, margin, min(1.0, comparisons * p), words, comparisons * least)


def unknown(check: str, why: str) -> Measured:
    """A check that has nothing to measure."""
    return Measured(check, None, None, None, why)


def share_p(count: int, n: int, share: float) -> float:
    """The one-sided exact test of "each of n images is counted with probability `share` (in percent) at most"."""
    return float(binom.sf(count - 1, n, share / 100))
