"""Two Gaussians: how many labels standard and robust accuracy take, and how far unlabelled points replace them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from benchmark.report.figures import series_style
from benchmark.studies.points import Pixels, chance, generator, linear_classifier, measured_errors
from benchmark.studies.study import Comparison, Inputs, StudyResult

PIXELS = Pixels(100.0)
LABELLED, PSEUDO, MIXED = "labelled", "pseudo-labelled", "partly relevant"
COUNTS, UNLABELLED = (1, 4, 16, 64, 256), (100, 300, 1000, 3000)
DOUBLING = tuple(2**power for power in range(4, 17))
RELEVANT = (1.0, 0.5, 0.25, 0.125)
TARGET = 0.02
"""The robust error at which the amounts of partly relevant points are compared."""
MIXED_TRIALS = 4
"""Training sets, the first, of which partly relevant points are tried."""
BLOCK = 4096
"""Points that are drawn at a time."""
EXPECTED = {
    (LABELLED, 4): ((3.05, 0.05), (63.5, 0.5)),
    (LABELLED, 16): ((0.06, 0.005), (16.45, 0.15)),
    (PSEUDO, 1000): ((0.0, 0.05), (0.29, 0.005)),
}
"""Standard and robust error in %, each with half the width of what is given for it."""
Row = dict[str, Any]


def unlabelled_means(
    start: Tensor, counts: Sequence[int], draws: torch.Generator, *, relevant: float, sigma: float
) -> Iterator[tuple[int, Tensor]]:
    """Numbers of points, and after each the mean (d,) of pseudo-label times point.

    A point is y + sigma noise in every coordinate with probability `relevant`, else noise alone; its pseudo-label is
    the sign of its product with `start` (d,).

    Source: Carmon et al., arXiv:1905.13736, Section 3.
    """
    total, seen, d = torch.zeros(len(start)), 0, len(start)
    for count in counts:
        while seen < count:
            size = min(BLOCK, count - seen)
            label = 2.0 * torch.randint(2, (size, 1), generator=draws) - 1
            label *= torch.rand(size, 1, generator=draws) < relevant
            points = label + sigma * torch.randn(size, d, generator=draws)
            total += (points @ start).sign() @ points
            seen += size
        yield count, total / count


def compute(inputs: Inputs, *, d: int, epsilon: float, trials: int, test: int) -> StudyResult:
    """Standard and robust errors of the classifier that averages label times point.

    Args:
        d: dimensions; sigma is d ** (1 / 4), and the mean is +-1 in every coordinate.
        epsilon: of the Linf attack, in the unit of the coordinates.
        trials: training sets. test: points on which each classifier is attacked.

    Source: Schmidt et al., arXiv:1804.11285, Section 2.1; Carmon et al., arXiv:1905.13736, Section 3.
    Deviations: the mean is the same in every trial, where Schmidt et al. draw it.
    """
    sigma = d**0.25
    rows: list[Row] = []
    for trial in range(trials):
        draws = generator(inputs.seed, trial)
        y = torch.randint(2, (test,), generator=draws)
        z = (2.0 * y - 1)[:, None] + sigma * torch.randn(test, d, generator=draws)
        labelled = 1 + sigma * torch.randn(max(COUNTS), d, generator=draws)  # label times point

        def measure(kind: str, relevant: float, count: int, weight: Tensor) -> float:
            model = linear_classifier(weight, PIXELS)
            found = measured_errors(model, z, y, "fgsm", epsilon=epsilon, seed=inputs.seed)  # noqa: B023 (called here)
            errors = {"standard_error": 100 * found.natural, "robust_error": 100 * found.robust}
            rows.append({"kind": kind, "relevant": relevant, "points": count, "trial": trial, **errors, "n": test})  # noqa: B023
            return found.robust

        for count in COUNTS:
            measure(LABELLED, 1.0, count, labelled[:count].mean(0))
        means = unlabelled_means(labelled[:4].mean(0), UNLABELLED, draws, relevant=1.0, sigma=sigma)
        for count, mean in means:
            measure(PSEUDO, 1.0, count, mean)
        for relevant in RELEVANT if trial < MIXED_TRIALS else ():
            means = unlabelled_means(labelled[:16].mean(0), DOUBLING, draws, relevant=relevant, sigma=sigma)
            for count, mean in means:
                if measure(MIXED, relevant, count, mean) < TARGET:
                    break
    return StudyResult(pd.DataFrame(rows), _comparisons(rows, trials * test), _sentence(rows))


def _mean(rows: Sequence[Row], kind: str, count: int, error: str) -> float:
    return float(np.mean([row[error] for row in rows if row["kind"] == kind and row["points"] == count]))


def _needed(rows: Sequence[Row], relevant: float) -> float:
    """How many points bring the robust error to the target: the geometric mean over trials; NaN where some do not."""
    logs = []
    for trial in sorted({row["trial"] for row in rows if row["kind"] == MIXED}):
        own = [row for row in rows if (row["kind"], row["relevant"], row["trial"]) == (MIXED, relevant, trial)]
        below = [row for row in own if row["robust_error"] < 100 * TARGET]
        if not below or len(own) < 2:
            return math.nan
        (x0, e0), (x1, e1) = ((math.log(row["points"]), max(row["robust_error"], 0.01)) for row in own[-2:])
        share = (math.log(e0) - math.log(100 * TARGET)) / (math.log(e0) - math.log(e1))
        logs.append(x0 + share * (x1 - x0))
    return math.exp(float(np.mean(logs)))


def _exponent(rows: Sequence[Row]) -> float:
    """The slope of log needed points against log 1 / relevant, by least squares over what reaches the target."""
    found = [(math.log(1 / relevant), _needed(rows, relevant)) for relevant in RELEVANT]
    reached = np.array([(x, math.log(needed)) for x, needed in found if not math.isnan(needed)])
    return float(np.polyfit(reached[:, 0], reached[:, 1], 1)[0]) if len(reached) > 1 else math.nan


def _comparisons(rows: Sequence[Row], n: int) -> list[Comparison]:
    shown = []
    for (kind, count), expected in EXPECTED.items():
        names = f"4 labels and {count} pseudo-labels" if kind == PSEUDO else f"{count} labels"
        for error, (published, width) in zip(("standard_error", "robust_error"), expected, strict=True):
            values = [row[error] for row in rows if row["kind"] == kind and row["points"] == count]
            between_trials = 3 * float(np.std(values)) / math.sqrt(len(values))
            shown.append(
                Comparison(
                    f"{error.replace('_', ' ')} of {names} (%)",
                    published=published,
                    measured=float(np.mean(values)),
                    within=width + max(between_trials, 100 * chance(published / 100, n)),
                    n=n,
                    source="computed independently for this model",
                )
            )
    shown.append(
        Comparison(
            "exponent of 1 / (relevant share) in the points needed",
            published=2.0,
            measured=_exponent(rows),
            within=0.5,
            n=n,
            source="Carmon et al. 2019, Section 3 (1 / share squared; from memory, unverified)",
            why="the pseudo-labels of irrelevant points pull towards the first classifier, however many there are",
        )
    )
    return shown


def _sentence(rows: Sequence[Row]) -> str:
    def say(kind: str, count: int) -> str:
        errors = (_mean(rows, kind, count, error) for error in ("standard_error", "robust_error"))
        return " and ".join(f"{error:.2f}%" for error in errors)

    needed = ", ".join(f"{_needed(rows, relevant):.0f} at {relevant:g}" for relevant in RELEVANT)
    return (
        f"Four labels give {say(LABELLED, 4)} standard and robust error, 16 give {say(LABELLED, 16)}; four labels and "
        f"1,000 pseudo-labelled points {say(PSEUDO, 1000)}. Points needed for {100 * TARGET:g}% robust error, by the "
        f"share of relevant ones: {needed}; they grow as 1 / share to the power of {_exponent(rows):.2f}."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Errors against labels, and against pseudo-labels; the partly relevant ones by their share."""
    figure = Figure(figsize=(10, 3.8))
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for axes, kind, title in ((left, LABELLED, "labels"), (middle, PSEUDO, "pseudo-labels beside 4 labels")):
        for place, error in enumerate(("standard_error", "robust_error")):
            _curve(axes, table[table["kind"] == kind], error, error.replace("_", " "), place)
        axes.set(xlabel=title)
        axes.legend(frameon=False)
    mixed = table[table["kind"] == MIXED]
    for place, relevant in enumerate(RELEVANT):
        _curve(right, mixed[mixed["relevant"] == relevant], "robust_error", f"{100 * relevant:g}%", place)
    right.set(xlabel="pseudo-labels beside 16 labels")
    right.legend(frameon=False, title="relevant (robust error)")
    left.set(ylabel="error (%)", yscale="symlog", ylim=(0, 100))
    left.set_yscale("symlog", linthresh=0.1)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, error: str, label: str, place: int) -> None:
    means = rows.groupby("points")[error].mean()
    axes.plot(means.index, means, label=label, **series_style(place))
    axes.set_xscale("log")
