"""How sure it is that one run breaks more of some images than another one, and more by a margin."""

import numpy as np
from scipy.stats import beta

DOUBT = 1e-4
"""The probability with which the rate of images that the other run alone breaks may lie beyond what is tried."""
TRIED = 20


def gain_p(alone: int, beside: int, n: int, margin: float) -> float:
    """The exact test of "of n images one run breaks at most so many percent more than another one".

    The difference alone - beside is compared with its distribution where each image is broken by the one run alone with
    probability q + margin and by the other alone with probability q, for the q that explains it best among all those up
    to an upper confidence limit; the limit's own error is added (Berger and Boos, JASA 89, 1994). With a margin of 0 it
    is McNemar's question.

    Args:
        alone, beside: images that the one run alone breaks, and the other alone. margin: in percent.
    """
    share = margin / 100
    limit = float(beta.ppf(1 - DOUBT, beside + 1, n - beside)) if beside < n else 1.0
    rates = np.linspace(0, min(limit, (1 - share) / 2), TRIED)
    return min(1.0, max(_tail(alone - beside, n, rate + share, rate) for rate in rates) + DOUBT)


def _tail(difference: int, n: int, first: float, second: float) -> float:
    """P(D >= difference), where D is the sum of n draws of +1, -1 and 0 with these probabilities and the rest."""
    size = 2 * n + 1
    one = np.zeros(size)
    one[[0, 1, -1]] = 1 - first - second, first, second
    all_of_them = np.fft.ifft(np.fft.fft(one) ** n).real  # at d % size the probability of d
    return float(all_of_them[np.arange(difference, n + 1) % size].sum().clip(0, 1))
