"""How far two measures on the same images are apart, between images and between trainings."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

FEWEST = 3
"""So many trainings a side at least say how much another training would differ."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """A difference in points, with its standard error and degrees of freedom.

    Args:
        points: the first measure minus the second, over all images and trainings.
        centre: what interval and tests are centred at.
        over_trainings: whether the error counts how trainings differ; else it is of the models at hand.
    """

    points: float
    centre: float
    error: float
    freedom: float
    over_trainings: bool

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval, in points."""
        reach = float(t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.centre - reach, self.centre + reach

    def p_above(self, points: float) -> float:
        """The one-sided p-value of "the difference is at most so many points"."""
        return float(t.sf((self.centre - points) / self.error, self.freedom))

    def p_below(self, points: float) -> float:
        """The one-sided p-value of "the difference is at least so many points"."""
        return float(t.cdf((self.centre - points) / self.error, self.freedom))


def effect(first: Values, second: Values, *, paired: bool) -> Effect:
    """The difference of two measures of the same images.

    The variance between images is that of each image's mean difference, with a difference of 1 and one of -1 added, so
    that it is never zero (Bonett and Price 2012). Where each side has `FEWEST` trainings, the variance between
    trainings is added, Welch's; both together are conservative, since trainings differ on single images, too.

    Args:
        first, second: (S, N) and (T, N), a training a row and an image a column: 1 where it is classified correctly, or
            a difference of such numbers.
        paired: whether row by row the two are of one training.
    """
    each = first.mean(0) - second.mean(0)
    padded = np.append(each, [1.0, -1.0])
    parts = [(float(padded.var(ddof=1)) / len(padded), len(padded) - 1)]
    over_trainings = min(len(first), len(second)) >= FEWEST
    if over_trainings:
        means = [(first - second).mean(1)] if paired else [first.mean(1), second.mean(1)]
        parts += [(float(side.var(ddof=1)) / len(side), len(side) - 1) for side in means]
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / free for variance, free in parts)
    return Effect(100 * float(each.mean()), 100 * float(padded.mean()), 100 * math.sqrt(total), freedom, over_trainings)
