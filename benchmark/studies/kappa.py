"""GAIRAT's kappa, the number of an image's iterates that are still classified correctly, beside its distance."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from attacks.draws import Draws
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.report.figures import new_figure, series_style
from benchmark.studies.shipped import broken_within, digits_model
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import digits_images
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.search import search

MODELS = ("natural", "madry", "gairat")
SOURCE = "Zhang et al. 2021 (GAIRAT), Section 3.2"


def distances(model: torch.nn.Module, images: Split, radii: Tensor, *, seed: int) -> Tensor:
    """(N,) the least of some radii, ascending, at which PGD-20 breaks an image; 0 where it is misclassified.

    An image that none breaks has the largest radius and one step more.
    """
    broken = torch.from_numpy(broken_within(model, images, "pgd-20", radii.tolist(), seed=seed)[0])
    scale = torch.cat([radii, radii[-1:] + (radii[1] - radii[0])])
    found: Tensor = scale[(~broken).sum(1)]
    with torch.no_grad():
        wrong = model(images.x).argmax(1) != images.y
    return torch.where(wrong, torch.zeros(()), found)


def compute(inputs: Inputs, *, images: int, radii: int, steps: int) -> StudyResult:
    """kappa and distance of digits' test images, for models that come with the project.

    Args:
        images: how many. radii: how many epsilons are tried, up to 0.5. steps: K of the PGD that kappa counts.

    Source: Zhang et al., arXiv:2010.01736, Section 3.2.
    Deviations: test images, where GAIRAT weighs training images; the distance is the least epsilon that PGD-20 needs.
    """
    chosen = digits_images("test", images, inputs)
    threat, grid = ThreatModel("Linf", 0.2), torch.linspace(0.5 / radii, 0.5, radii)
    rows: list[dict[str, Any]] = []
    comparisons = []
    for name in MODELS:
        model = digits_model(name)
        draws = Draws.start(inputs.seed, chosen.index, torch.zeros_like(chosen.index))
        ctx = TrainingContext(threat, draws, steps, 0.25)
        kappa = search(ctx, model, chosen.x, chosen.y, loss="cross-entropy", start="uniform").correct
        distance = distances(model, chosen, grid, seed=inputs.seed)
        rank = float(spearmanr(kappa.numpy(), distance.numpy()).statistic)
        for value in sorted(set(kappa.tolist())):
            own = distance[kappa == value]
            rows.append(
                {"model": name, "kappa": value, "images": len(own), "mean_distance": float(own.mean()), "rank": rank}
            )
        comparisons.append(
            Comparison(
                f"rank correlation of kappa with the distance, {name}, less two standard errors",
                published=0.0,
                measured=rank - 2 / math.sqrt(len(chosen) - 3),
                relation=">=",
                n=len(chosen),
                source=SOURCE,
            )
        )
    table = pd.DataFrame(rows)
    return StudyResult(table, comparisons, _sentence(table, steps))


def _sentence(table: pd.DataFrame, steps: int) -> str:
    ranks = ", ".join(f"{name} {rows['rank'].iloc[0]:.2f}" for name, rows in table.groupby("model", sort=False))
    shares = []
    for name, rows in table.groupby("model", sort=False):
        safe = rows[rows["kappa"] == steps]["images"].sum() / rows["images"].sum()
        shares.append(f"{name} {100 * safe:.0f}%")
    return (
        f"kappa orders images as their distance does (rank correlation: {ranks}), but for those that withstand all "
        f"{steps} steps, among which it does not tell the near from the far ({', '.join(shares)} of the images)."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Mean distance against kappa, a line a model; the larger a point, the more images."""
    figure, axes = new_figure(5.5, 3.8)
    for place, (name, rows) in enumerate(table.groupby("model", sort=False)):
        style = series_style(place)
        axes.plot(rows["kappa"], rows["mean_distance"], color=style["color"], linewidth=1, label=str(name))
        sizes = 6 + 120 * np.sqrt(rows["images"] / table["images"].max())
        axes.scatter(rows["kappa"], rows["mean_distance"], s=sizes, color=style["color"], marker=style["marker"])
    axes.set(xlabel="kappa: iterates that are still correct", ylabel="mean distance (least epsilon that breaks)")
    axes.legend(frameon=False)
    return figure
