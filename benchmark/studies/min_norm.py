"""Linear regression by the interpolant of least norm: when augmentation costs accuracy, and what it costs exactly."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.linalg import null_space, orth

from benchmark.report.figures import COLOURS, new_figure
from benchmark.studies.study import Comparison, Inputs, StudyResult

Floats = NDArray[np.float64]
POINTS, FLAT = 24, 1e-9
"""Points of a distribution; below FLAT a difference is rounding."""


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


def compute(inputs: Inputs, *, problems: int, dimension: int) -> StudyResult:
    """Errors of the three estimators on random problems, and what Theorem 1 predicts.

    Args:
        problems: how many. dimension: of each.

    Source: Raghunathan et al., arXiv:2002.10716, Sections 3 and 5, Theorems 1 and 2.
    Deviations: none.
    """
    rows = []
    for number in range(problems):
        problem = random_problem(np.random.default_rng([inputs.seed, number]), dimension)
        standard, aug = least_norm(problem)
        trained, by_augmented = self_trained(problem, standard), self_trained(problem, aug)
        gain = problem.standard_error(standard) - problem.standard_error(aug)
        plain = float(np.sum((standard - problem.truth) ** 2) - np.sum((aug - problem.truth) ** 2))
        rows.append(
            {
                "problem": number,
                "standard": problem.standard_error(standard),
                "augmented": problem.standard_error(aug),
                "self_trained": problem.standard_error(trained),
                "robust_standard": problem.robust_error(standard),
                "robust_augmented": problem.robust_error(aug),
                "robust_self_trained": problem.robust_error(trained),
                "robust_taught_by_augmented": problem.robust_error(by_augmented),
                "off_by": abs(gain - predicted_gain(problem, problem.second_moment)) / max(1.0, abs(gain)),
                "gain_isotropic": plain,
            }
        )
    table = pd.DataFrame(rows)
    return StudyResult(table, _comparisons(table), _sentence(table))


def _comparisons(table: pd.DataFrame) -> list[Comparison]:
    n = len(table)
    scale = table["standard"].clip(lower=1.0)
    source = "Raghunathan et al. 2020, Theorem {}"
    worse = float(((table["self_trained"] - table["standard"]) / scale).max())

    def less_robust(trained: str, other: str) -> float:
        return float((table[trained] > table[other] + FLAT * scale).sum())

    return [
        Comparison(
            "largest deviation from v'Sv + 2w'Sv (relative beyond 1)",
            published=0.0,
            measured=float(table["off_by"].max()),
            within=1e-10,
            n=n,
            source=source.format(1),
        ),
        Comparison(
            "least gain by augmentation where S is the identity",
            published=0.0,
            measured=float(table["gain_isotropic"].min()),
            relation=">=",
            within=FLAT,
            n=n,
            source=f"{source.format(1)}, Corollary 1",
        ),
        Comparison(
            "largest error that robust self-training adds (relative beyond 1)",
            published=0.0,
            measured=worse,
            relation="<=",
            within=FLAT,
            n=n,
            source=source.format(2),
        ),
        Comparison(
            "problems in which self-training has more robust error than its teacher, the standard estimate",
            published=0.0,
            measured=less_robust("robust_self_trained", "robust_standard"),
            n=n,
            source=source.format(2),
        ),
        Comparison(
            "problems in which self-training has more robust error than its teacher, the augmented estimate",
            published=0.0,
            measured=less_robust("robust_taught_by_augmented", "robust_augmented"),
            n=n,
            source=f"{source.format(2)}: its teacher is any interpolant",
        ),
        Comparison(
            "problems in which self-training from the standard estimate has more robust error than augmentation",
            published=0.0,
            measured=less_robust("robust_self_trained", "robust_augmented"),
            n=n,
            source=f"{source.format(2)}, read as against augmentation",
            why="what is proven compares with the teacher; where augmentation happens to lower the error, too, "
            "self-training stays near the worse teacher",
        ),
    ]


def _sentence(table: pd.DataFrame) -> str:
    worse = float((table["augmented"] > table["standard"]).mean())
    return (
        f"Augmentation with the right labels raises the standard error in {100 * worse:.1f}% of {len(table):,} random "
        f"problems, by exactly what Theorem 1 says (to {table['off_by'].max():.1g}); robust self-training in none."
    )


def draw(table: pd.DataFrame) -> Figure:
    """The standard errors of augmentation and of robust self-training beside that of the standard estimator."""
    figure, axes = new_figure(4.8, 4.4)
    for colour, name, label in (
        (COLOURS[1], "augmented", "augmented"),
        (COLOURS[0], "self_trained", "robust self-training"),
    ):
        axes.plot(table["standard"], table[name] + 1e-6, ".", markersize=3, color=colour, label=label, alpha=0.6)
    span = [table["standard"].min(), table["standard"].max()]
    axes.plot(span, span, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="error of the standard estimator", ylabel="error")
    axes.legend(frameon=False, markerscale=3)
    return figure
