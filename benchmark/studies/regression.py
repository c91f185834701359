"""Random linear regressions without noise, and the estimators that are compared on them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space, orth

Floats = NDArray[np.float64]
POINTS = 24
"""Of a distribution."""


@dataclass(frozen=True)
class Problem:
    """A noiseless linear regression, and perturbations that change no label.

    Args:
        x: (P, D) the distribution's points; moved: (P, D) each point's perturbation.
        weights: (P,) probabilities.
        truth: (D,), alike on x and moved.
        n: the first of the points are the training set.
    """

    x: Floats
    moved: Floats
    weights: Floats
    truth: Floats
    n: int

    @property
    def second_moment(self) -> Floats:
        """(D, D) of the distribution."""
        return (self.x.T * self.weights) @ self.x

    def standard_error(self, estimate: Floats) -> float:
        """Mean squared error."""
        return float(self.weights @ (self.x @ (estimate - self.truth)) ** 2)

    def robust_error(self, estimate: Floats) -> float:
        """The same at the worse of each point and its perturbation."""
        pair = np.stack([self.x, self.moved]) @ (estimate - self.truth)
        return float(self.weights @ (pair**2).max(0))


def random_problem(draws: np.random.Generator, dimension: int) -> Problem:
    """Points of a random scale a direction, perturbed along random directions in which the truth is flat."""
    truth = draws.standard_normal(dimension)
    basis = np.linalg.qr(draws.standard_normal((dimension, dimension)))[0]
    x = (draws.standard_normal((POINTS, dimension)) * np.exp(draws.standard_normal(dimension))) @ basis
    flat = null_space(truth[None])
    shared = flat @ draws.standard_normal((dimension - 1, 3))  # perturbations share a few directions
    moved = x + draws.standard_normal((POINTS, 3)) @ shared.T
    return Problem(x, moved, draws.dirichlet(np.ones(POINTS)), truth, int(draws.integers(2, dimension // 2)))


def least_norm(problem: Problem) -> tuple[Floats, Floats]:
    """The interpolants of least norm of the training set, and of the augmented one.

    Source: Raghunathan et al., arXiv:2002.10716, Section 3.
    """
    train = problem.x[: problem.n]
    augmented = np.concatenate([train, problem.moved[: problem.n]])
    standard, aug = (np.linalg.pinv(rows) @ (rows @ problem.truth) for rows in (train, augmented))
    return standard, aug


def self_trained(problem: Problem, teacher: Floats) -> Floats:
    """The nearest to a teacher over the distribution that fits all labels and is alike on every perturbation.

    Source: Raghunathan et al., arXiv:2002.10716, Section 5, linear regression.
    """
    constraints = np.concatenate([problem.x[: problem.n], problem.moved - problem.x])
    free = null_space(constraints)
    fitting = np.linalg.pinv(constraints) @ (constraints @ problem.truth)
    root = problem.x * np.sqrt(problem.weights)[:, None]
    step = np.linalg.lstsq(root @ free, root @ (teacher - fitting), rcond=None)[0]
    nearest: Floats = fitting + free @ step
    return nearest


def predicted_gain(problem: Problem, moment: Floats) -> float:
    """v' S v + 2 w' S v: what augmentation takes off the standard error under a second moment S (D, D).

    v is what augmentation adds to the standard estimate, w what both lack of the truth.
    Source: Raghunathan et al., arXiv:2002.10716, Theorem 1.
    """
    train = problem.x[: problem.n]
    spanned = orth(np.concatenate([train, problem.moved[: problem.n]]).T)
    of_augmented = spanned @ (spanned.T @ problem.truth)
    base = orth(train.T)
    v = of_augmented - base @ (base.T @ of_augmented)
    w = problem.truth - of_augmented
    return float(v @ moment @ v + 2 * w @ moment @ v)
