"""The example in which accuracy and robustness part: labels that alternate on the unit interval."""

import math

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from attacks.api import attack
from benchmark.report.figures import new_figure, series_style
from benchmark.studies.study import Comparison, Inputs, StudyResult

SOURCE = "Zhang et al. 2019, Section 2.3"
BAYES, ALL_ONE = "Bayes-optimal", "all-one"
PUBLISHED = {BAYES: (0.0, 1.0), ALL_ONE: (0.5, 0.5)}
"""Natural and robust error."""


class Alternating(nn.Module):
    """Class 0 on [0, epsilon), 1 from there to 2 epsilon, and so on: the sign of a sine, so that it has a gradient."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        s = torch.sin((1 - 1e-7) * math.pi * x.flatten().double() / self.epsilon).float()  # 1 belongs to the last
        return torch.stack([s, -s], 1)


class AllOne(nn.Module):
    """Class 1 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)


def compute(inputs: Inputs, *, epsilon: float, points: int, radii: int) -> StudyResult:
    """Natural and robust error of both classifiers, under attacks of several radii.

    Args:
        epsilon: the length of an interval of one label, and the radius of the published errors; 1 / (2 epsilon) is
            a whole number in the paper.
        points: evenly spread over [0, 1].
        radii: how many, beside 0.

    Source: Zhang et al., arXiv:1901.08573, Section 2.3, Example.
    Deviations: none.
    """
    x = ((torch.arange(points, dtype=torch.float64) + 0.5) / points).float().view(-1, 1, 1, 1)
    y = (x.flatten().double() / epsilon).floor().long() % 2
    models: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
        BAYES: (Alternating(epsilon).eval(), ("pgd-20x10", "square-500")),
        ALL_ONE: (AllOne().eval(), ("square-500",)),  # it has no gradient
    }
    rows = []
    for name, (model, attacks) in models.items():
        for share in (place / radii for place in range(radii + 1)):
            shown = [attack(model, x, y, one, epsilon=share * epsilon, seed=inputs.seed) for one in attacks]
            robust = torch.stack([one.robust for one in shown]).all(0)
            rows.append(
                {
                    "classifier": name,
                    "radius": share * epsilon,
                    "natural_error": 1 - shown[0].correct.double().mean().item(),
                    "robust_error": 1 - robust.double().mean().item(),
                    "n": points,
                }
            )
    table = pd.DataFrame(rows)
    comparisons = [one for name in models for one in _comparisons(table, name, points)]
    return StudyResult(table, comparisons, _sentence(table))


def _comparisons(table: pd.DataFrame, name: str, points: int) -> list[Comparison]:
    last = table[table["classifier"] == name].iloc[-1]
    names = ("natural", "robust")
    return [
        Comparison(
            f"{kind} error, {name}",
            published=value,
            measured=float(last[f"{kind}_error"]),
            within=1 / points,
            n=points,
            source=SOURCE,
        )
        for kind, value in zip(names, PUBLISHED[name], strict=True)
    ]


def _sentence(table: pd.DataFrame) -> str:
    last = table.groupby("classifier").last()
    bayes, ones = last.loc[BAYES], last.loc[ALL_ONE]
    return (
        f"The Bayes-optimal classifier errs on {100 * bayes['natural_error']:.1f}% of the points and, under attack, on "
        f"{100 * bayes['robust_error']:.1f}%; the classifier that always says one errs on "
        f"{100 * ones['natural_error']:.1f}% and {100 * ones['robust_error']:.1f}%. The most accurate one is the least "
        "robust."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Robust error against the radius of the attack."""
    figure, axes = new_figure(5.5, 3.6)
    for place, (name, rows) in enumerate(table.groupby("classifier", sort=False)):
        axes.plot(rows["radius"], 100 * rows["robust_error"], label=str(name), **series_style(place))
    axes.set(
        xlabel="radius of the attack",
        ylabel="robust error (%)",
        ylim=(-3, 103),
        title="Labels that alternate on the unit interval",
    )
    axes.set_xticks(np.unique(table["radius"])[::2])
    axes.legend(frameon=False)
    return figure
