"""Attacks ranked by the distances at which they break images, beside the least that any of them found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from benchmark.report.figures import series_style
from benchmark.studies.shipped import broken_within, digits_model
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import digits_images

Row = dict[str, Any]
Curve = NDArray[np.float64]
MODELS = ("natural", "madry", "trades-b6")
ATTACKS = ("fgsm", "mi-fgsm", "pgd-20", "pgd-100", "cw-linf", "apgd-ce", "apgd-t", "fab-t", "square-2000")
"""At about AttackBench's budget, 2,000 passes an image: fab-t takes 2,718, forward and backward, all others less."""
LARGEST = {"natural": 0.2, "madry": 0.5, "trades-b6": 0.5}
"""By model, the radius up to which attacks are compared: nearly all images are broken there."""
BEST = "all of them"
SOURCE = "Cinà et al., AttackBench, arXiv:2404.19460: APGD among the best under Linf (from memory, unverified)"


def optimality(curve: Curve, best: Curve, clean: float, radii: Sequence[float]) -> float:
    """The area between clean and robust accuracy against the radius, from 0 on, as a share of the best's.

    Args:
        curve, best: (R,) robust accuracies at the radii, ascending. clean: accuracy at radius 0.

    Source: Cinà et al., arXiv:2404.19460, Section 3 (local optimality).
    """
    at = np.array([0.0, *radii])
    own, most = (trapezoid(clean - np.array([clean, *values]), at) for values in (curve, best))
    return float(own / most)


def compute(inputs: Inputs, *, images: int, radii: int) -> StudyResult:
    """Robust accuracy against the radius, of each attack and of all together, for models that come with the project.

    Args:
        images: of digits' test images. radii: how many, up to that of `LARGEST`.

    Source: Cinà et al., arXiv:2404.19460.
    Deviations: a grid of radii in place of each attack's own search for the nearest point; digits.
    """
    chosen = digits_images("test", images, inputs)
    rows: list[Row] = []
    for name in MODELS:
        model = digits_model(name)
        grid = [float(radius) for radius in np.linspace(0, LARGEST[name], radii + 1)[1:]]
        found = {one: broken_within(model, chosen, one, grid, seed=inputs.seed) for one in ATTACKS}
        with torch.no_grad():
            clean = float((model(chosen.x).argmax(1) == chosen.y).double().mean())
        together = np.logical_or.reduce([broken for broken, _ in found.values()])
        curves = {one: 1 - broken.mean(0) for one, (broken, _) in {**found, BEST: (together, 0.0)}.items()}
        for one, curve in curves.items():
            share = optimality(curve, curves[BEST], clean, grid)
            passes = found[one][1] if one in found else float("nan")
            rows += [
                {"model": name, "attack": one, "epsilon": radius, "robust_acc": 100 * value}
                | {"optimality": share, "most_passes": passes, "n": len(chosen)}
                for radius, value in zip([0.0, *grid], [clean, *curve], strict=True)
            ]
    shares = _means(rows)
    return StudyResult(pd.DataFrame(rows), _comparisons(shares, len(chosen)), _sentence(shares))


def _means(rows: Sequence[Row]) -> dict[str, float]:
    """By attack, the mean of its optimality over the models, the best first."""
    own = {one: [row["optimality"] for row in rows if row["attack"] == one] for one in ATTACKS}
    return dict(sorted(((one, float(np.mean(each))) for one, each in own.items()), key=lambda item: -item[1]))


def _comparisons(shares: Mapping[str, float], n: int) -> list[Comparison]:
    apgd = max(share for one, share in shares.items() if one.startswith("apgd"))
    return [
        Comparison(
            f"optimality of the better APGD less that of {other}",
            published=0.0,
            measured=apgd - shares[other],
            relation=">=",
            within=0.005,
            n=n,
            source=SOURCE,
        )
        for other in shares
        if not other.startswith("apgd")
    ]


def _sentence(shares: Mapping[str, float]) -> str:
    said = ", ".join(f"{one} {share:.3f}" for one, share in shares.items())
    return f"Optimality, 1 for the least distance that any of these attacks found, mean over the models: {said}."


def draw(table: pd.DataFrame) -> Figure:
    """By model, the points of robust accuracy that each attack leaves above that of all together."""
    models = list(dict.fromkeys(table["model"]))
    figure = Figure(figsize=(3.4 * len(models), 3.8))
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False, sharey=True)[0], models, strict=True):
        own = table[table["model"] == model]
        best = own[own["attack"] == BEST].set_index("epsilon")["robust_acc"]
        for place, (name, curve) in enumerate(own[own["attack"] != BEST].groupby("attack", sort=False)):
            above = curve.set_index("epsilon")["robust_acc"] - best
            axes.plot(above.index, above, label=str(name), **series_style(place))
        axes.set(xlabel="epsilon", title=model)
    figure.axes[0].set(ylabel="points above all attacks together")
    figure.axes[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
