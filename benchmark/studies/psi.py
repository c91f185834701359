"""What cross-entropy says of errors: psi of Zhang et al. (2019), for any number of classes."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import rel_entr, xlogy


def psi(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a wrong class costs at least in cross-entropy, in nats, where the right one is likelier by gap (in [0, 1]).

    For probabilities p and a prediction q whose likeliest class is c, KL(p, q) >= psi(max p - p_c), for any number of
    classes: of the two classes in question with p1 - p2 = gap and p1 + p2 = s the least is s psi(gap / s), at
    q1 = q2 = s / 2 and q = p elsewhere, and that falls as s grows to 1.
    Source: for two classes Zhang et al., arXiv:1901.08573, Table 1 (logistic loss).
    """
    value: NDArray[np.float64] = 0.5 * (xlogy(1 + gap, 1 + gap) + xlogy(1 - gap, 1 - gap))
    return value


def largest_gap(excess: float) -> float:
    """The inverse of psi: the largest gap in [0, 1] that an excess of cross-entropy, in nats, allows."""
    most = float(psi(np.array(1.0)))
    return 1.0 if excess >= most else float(brentq(lambda gap: float(psi(np.array(gap))) - excess, 0.0, 1.0))


def least_ratio(classes: int, *, draws: int, seed: int) -> float:
    """Of random probabilities p and q that disagree on the likeliest class, the least KL(p, q) / psi(gap).

    Half of them are p and q at random; half are near the pair that attains the bound.
    """
    generator = np.random.default_rng([seed, classes])
    p, q = (generator.dirichlet(np.full(classes, 0.5), draws) for _ in range(2))
    near = generator.random(draws) < 0.5
    share = generator.uniform(0.0, 0.1, (draws, 1))
    tied = np.full((draws, classes), 1e-12)
    tied[:, :2] = 0.5, 0.5 + 1e-9
    lead = generator.uniform(0.05, 0.95, draws)
    sure = np.zeros((draws, classes))
    sure[:, 0], sure[:, 1] = (1 + lead) / 2, (1 - lead) / 2
    p = np.where(near[:, None], (1 - share) * sure + share * p, p)
    q = np.where(near[:, None], (1 - share) * tied + share * q, q)
    q /= q.sum(1, keepdims=True)
    gap = p.max(1) - np.take_along_axis(p, q.argmax(1)[:, None], 1)[:, 0]
    counts = gap > 1e-3
    return float((rel_entr(p, q).sum(1)[counts] / psi(gap[counts])).min())
