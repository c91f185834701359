"""A staircase that splines fit: augmentation raises the error where points are few, robust self-training does not."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from benchmark.report.figures import new_figure, series_style
from benchmark.studies.study import Comparison, Inputs, StudyResult

Floats = NDArray[np.float64]
STAIRS = 10
WEIGHTS = np.array([0.2] * 5 + [0.01] * 5) / 1.05
HALF = 0.5
"""How far a point is moved: the stair at i reaches from i to i + 1/2."""
SIZES = (22, 30, 35, 40, 50, 80, 100, 200, 300, 400, 500, 1000)
FEW, MANY = 40, 1000
UNLABELLED = 50_000
STANDARD, AUGMENTED, SELF_TRAINED = "standard", "augmented", "robust self-training"
SOURCE = "Raghunathan et al. 2020, Section 6 and Figure 6a"


def site_features() -> Floats:
    """(2 STAIRS, 22) cubic B-spline features of the sites: first the stairs' left ends, then their right ends."""
    sites = np.arange(STAIRS, dtype=np.float64)
    inner = np.sort(np.concatenate([sites, sites + HALF]))
    knots = np.concatenate([[-3.0, -2.0, -1.0], inner, inner[-1] + np.arange(1.0, 4.0)])
    features: Floats = BSpline.design_matrix(np.concatenate([sites, sites + HALF]), knots, 3).toarray()
    return features


def smoothest(features: Floats, y: Floats) -> Floats:
    """(F,) the spline through all points that has the least squared second differences of its coefficients.

    Args:
        features: (N, F); y: (N,).
    """
    n, width = features.shape
    second = np.diff(np.eye(width), n=2, axis=0)
    matrix = np.block([[second.T @ second, features.T], [features, np.zeros((n, n))]])
    solution: Floats = np.linalg.lstsq(matrix, np.concatenate([np.zeros(width), y]), rcond=None)[0]
    return solution[:width]


def self_trained(labelled: NDArray[np.bool_], unlabelled: Floats, teacher: Floats) -> Floats:
    """(2 STAIRS,) predictions, alike on both ends of a stair: the label's, else what is nearest to a teacher's.

    Any predictions of the sites are those of some spline, so that each stair has its own least squares.

    Args:
        labelled: (STAIRS,) whether a stair has a label. unlabelled: (2 STAIRS,) points of each site. teacher: its
            predictions there.

    Source: Raghunathan et al., arXiv:2002.10716, Section 5, linear regression.
    """
    weight = unlabelled.reshape(2, STAIRS) + 1e-12  # a stair without points takes the mean of its two ends
    nearest = (weight * teacher.reshape(2, STAIRS)).sum(0) / weight.sum(0)
    return np.tile(np.where(labelled, np.arange(STAIRS), nearest), 2)


def errors(predictions: Floats, noise: float) -> tuple[float, float]:
    """Mean squared error of the staircase, and with the worse end of each stair; a point is moved with `noise`."""
    left, right = ((predictions - np.tile(np.arange(STAIRS), 2)) ** 2).reshape(2, STAIRS)
    return float(WEIGHTS @ ((1 - noise) * left + noise * right)), float(WEIGHTS @ np.maximum(left, right))


def one_trial(draws: np.random.Generator, n: int, noise: float) -> dict[str, tuple[float, float]]:
    """Standard and robust error of each estimator on one training set of n points."""
    features = site_features()
    shares = np.concatenate([WEIGHTS * (1 - noise), WEIGHTS * noise])
    seen = draws.multinomial(n, shares) > 0
    labelled = seen[:STAIRS] | seen[STAIRS:]
    heights, both = np.tile(np.arange(STAIRS, dtype=np.float64), 2), np.tile(labelled, 2)
    standard = features @ smoothest(features[seen], heights[seen])
    predictions = {
        STANDARD: standard,
        AUGMENTED: features @ smoothest(features[both], heights[both]),
        SELF_TRAINED: self_trained(labelled, draws.multinomial(UNLABELLED, shares).astype(np.float64), standard),
    }
    return {name: errors(values, noise) for name, values in predictions.items()}


def compute(inputs: Inputs, *, trials: int, noise: float) -> StudyResult:
    """Errors of three estimators against the number of points.

    Args:
        trials: training sets of each size. noise: how often a point is moved to the right end of its stair.

    Source: Raghunathan et al., arXiv:2002.10716, Section 6; sizes, weights and knots by p-lambda/robust_tradeoff.
    Deviations: the same number of trials for every size, where the authors have 2,000 for few points and 25 for many;
        points of the training set are moved as often as test points, where theirs are half as often.
    """
    rows = []
    differences: dict[tuple[str, int], tuple[float, float]] = {}
    for n in SIZES:
        found = [one_trial(np.random.default_rng([inputs.seed, n, trial]), n, noise) for trial in range(trials)]
        base = np.array([one[STANDARD][0] for one in found])
        for name in (STANDARD, AUGMENTED, SELF_TRAINED):
            own = np.array([one[name] for one in found])
            above = own[:, 0] - base
            deviation = float(above.std(ddof=1)) / math.sqrt(trials)
            differences[name, n] = float(above.mean()), deviation
            rows.append(
                {
                    "estimator": name,
                    "samples": n,
                    "standard_error": float(own[:, 0].mean()),
                    "robust_error": float(own[:, 1].mean()),
                    "above_standard": float(above.mean()),
                    "deviation": deviation,
                    "trials": trials,
                }
            )
    return StudyResult(pd.DataFrame(rows), _comparisons(differences, trials), _sentence(differences))


def _comparisons(differences: dict[tuple[str, int], tuple[float, float]], trials: int) -> list[Comparison]:
    few, many = differences[AUGMENTED, FEW], differences[AUGMENTED, MANY]
    trained = max(differences[SELF_TRAINED, n][0] for n in SIZES)
    return [
        Comparison(
            f"error that augmentation adds at {FEW} samples, less two standard errors",
            published=0.0,
            measured=few[0] - 2 * few[1],
            relation=">=",
            n=trials,
            source=SOURCE,
        ),
        Comparison(
            f"error that augmentation adds at {MANY} samples",
            published=0.0,
            measured=many[0],
            relation="<=",
            within=0.01 * few[0] + 2 * many[1],
            n=trials,
            source=SOURCE,
        ),
        Comparison(
            "largest mean error that robust self-training adds, at any size",
            published=0.0,
            measured=trained,
            relation="<=",
            within=1e-9,
            n=trials,
            source=SOURCE,
        ),
    ]


def _sentence(differences: dict[tuple[str, int], tuple[float, float]]) -> str:
    def say(name: str, n: int) -> str:
        return f"{differences[name, n][0]:+.3g}"

    return (
        f"Augmentation changes the mean squared error by {say(AUGMENTED, FEW)} at {FEW} samples and by "
        f"{say(AUGMENTED, MANY)} at {MANY}; robust self-training by {say(SELF_TRAINED, FEW)} and "
        f"{say(SELF_TRAINED, MANY)}."
    )


def draw(table: pd.DataFrame) -> Figure:
    """What augmentation and robust self-training add to the error of the standard estimator."""
    figure, axes = new_figure(6, 3.8)
    for place, name in enumerate((AUGMENTED, SELF_TRAINED)):
        rows = table[table["estimator"] == name]
        axes.errorbar(
            rows["samples"], rows["above_standard"], yerr=rows["deviation"], label=name, **series_style(place)
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="samples", ylabel="error above that of the standard estimator")
    axes.legend(frameon=False)
    return figure
