"""The mass that lies near the boundary of half-spaces: never less than near that of a coordinate half-space."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import gennorm

from benchmark.report.figures import new_figure, series_style
from benchmark.studies.points import Pixels, chance, linear_classifier, measured_errors
from benchmark.studies.study import Comparison, Inputs, StudyResult

PIXELS = Pixels(40.0)
POWERS = (2, 4, 8)
"""Densities proportional to exp(-|x| ** power): log-concave, and the root of |x| ** power is convex from 2 on."""
SOURCE = "Barthe 2001, as Zhang et al. 2019 cite it (from memory, unverified)"


def directions(d: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Normals (d,) of half-spaces: one coordinate, several alike, and all with falling weights."""
    found = {}
    for count in (1, 2, 4, d):
        normal = np.zeros(d)
        normal[:count] = 1.0
        found[f"{count} of {d} coordinates" if count < d else f"all {d} coordinates"] = normal
    found["falling weights"] = 1.0 / np.arange(1.0, d + 1)
    return found


def compute(inputs: Inputs, *, d: int, epsilon: float, points: int) -> StudyResult:
    """The share of points that an attack carries across each half-space's boundary, beside the bound.

    Args:
        d: coordinates, independent and alike. epsilon: the Linf radius, in standard deviations of a coordinate.
        points: of each distribution.

    Source: Zhang et al., arXiv:1901.08573, Section 2, where the mass near the decision boundary is what robustness
        costs; the inequality is Barthe's.
    Deviations: half-spaces alone, where the inequality is of all sets of half the mass.
    """
    rows, comparisons = [], []
    for power in POWERS:
        law = gennorm(power, scale=1 / gennorm(power).std())
        draws = np.random.default_rng([inputs.seed, power])
        z = torch.from_numpy(law.rvs(size=(points, d), random_state=draws)).float()
        bound = 100 * float(law.cdf(epsilon) - law.cdf(-epsilon))
        masses: list[float] = []
        for name, normal in directions(d).items():
            weight = torch.from_numpy(normal).float()
            model = linear_classifier(weight, PIXELS)
            label = (z @ weight > 0).long()
            found = measured_errors(model, z, label, "fgsm", epsilon=epsilon, seed=inputs.seed)
            masses.append(100 * (found.robust - found.natural))
            rows.append({"power": power, "half_space": name, "mass": masses[-1], "bound": bound, "n": points})
        room = 100 * chance(bound / 100, points)
        what = f"mass near the boundary, density exp(-|x|^{power}) (%)"
        comparisons += [
            Comparison(
                f"{what}: one coordinate", published=bound, measured=masses[0], within=room, n=points, source=SOURCE
            ),
            Comparison(
                f"{what}: the least of the others",
                published=bound,
                measured=min(masses[1:]),
                relation=">=",
                within=room,
                n=points,
                source=SOURCE,
            ),
        ]
    table = pd.DataFrame(rows)
    return StudyResult(table, comparisons, _sentence(table, d, epsilon))


def _sentence(table: pd.DataFrame, d: int, epsilon: float) -> str:
    gaussian = table[table["power"] == POWERS[0]]
    least, most = gaussian["mass"].min(), gaussian["mass"].max()
    return (
        f"Under a Gaussian in {d} dimensions an Linf attack of {epsilon:g} standard deviations crosses the boundary of "
        f"the half-spaces for {least:.1f} to {most:.1f}% of the points; the bound is {gaussian['bound'].iloc[0]:.1f}%, "
        "and a half-space of one coordinate attains it."
    )


def draw(table: pd.DataFrame) -> Figure:
    """The mass near the boundary of each half-space, and the bound as a line, by distribution."""
    figure, axes = new_figure(6, 3.8)
    names = list(dict.fromkeys(table["half_space"]))
    for place, power in enumerate(POWERS):
        rows = table[table["power"] == power]
        style = series_style(place)
        axes.plot(names, rows["mass"], linestyle="none", label=f"exp(-|x|^{power})", **style)
        axes.axhline(rows["bound"].iloc[0], color=style["color"], linewidth=0.8)
    axes.set(ylabel="mass near the boundary (%)", ylim=(0, 100))
    axes.set_xticks(range(len(names)), [name.replace(" coord", "\ncoord").replace(" w", "\nw") for name in names])
    axes.legend(frameon=False, title="density (line: bound)")
    return figure
