"""Linear regression by the interpolant of least norm: when augmentation costs accuracy, and what it costs exactly."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.report.figures import COLOURS, new_figure
from benchmark.studies.regression import least_norm, predicted_gain, random_problem, self_trained
from benchmark.studies.study import Comparison, Inputs, StudyResult

FLAT = 1e-9
"""Below it a difference is rounding."""


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
