"""From measurements to outcomes: a check fails where its figure is beyond its margin, and no chance explains it."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom

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
    """

    check: str
    figure: float | None
    margin: float | None
    p: float | None
    measured: str


def findings(measured: Sequence[Measured]) -> list[Finding]:
    """The outcomes of all checks of one model, corrected for their number by Holm's method."""
    tested = [one for one in measured if one.p is not None]
    corrected = dict(zip([one.check for one in tested], holm([one.p or 0.0 for one in tested]), strict=True))
    return [_finding(one, corrected.get(one.check)) for one in measured]


def _finding(one: Measured, p_holm: float | None) -> Finding:
    def digits(p: float | None) -> float | None:
        return None if p is None else three_digits(p)

    figure = None if one.figure is None else round(one.figure, 4)
    return Finding(one.check, _outcome(one, p_holm), figure, one.margin, digits(one.p), digits(p_holm), one.measured)


def _outcome(one: Measured, p_holm: float | None) -> str:
    if one.margin is None:
        return "" if one.figure is not None else CANNOT_TELL
    if one.figure is None:
        return CANNOT_TELL
    if one.figure <= one.margin:
        return PASSES
    return FAILS if p_holm is None or p_holm < SIGNIFICANT else CANNOT_TELL


def share_p(count: int, n: int, share: float) -> float:
    """The one-sided exact test of "each of n images is counted with probability `share` (in percent) at most"."""
    return float(binom.sf(count - 1, n, share / 100))
