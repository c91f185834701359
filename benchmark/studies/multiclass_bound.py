"""The bound behind TRADES where there are more classes than two: of cross-entropy psi is what it is for two."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from attacks.api import attack
from attacks.draws import Draws
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.report.figures import new_figure, series_style
from benchmark.studies.psi import largest_gap, least_ratio, psi
from benchmark.studies.shipped import digits_model
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import digits_images
from model_zoo.defenses.context import TrainingContext

Row = dict[str, Any]
MODELS = ("natural", "madry", "mart", "trades-b1", "trades-b6")
EPSILON = 0.2
STEPS = 20
CLASSES = (2, 3, 10)
SOURCE = "Zhang et al. 2019, Theorem 3.1, by psi of cross-entropy"


class Tempered(nn.Module):
    """A network whose logits are divided by the temperature at which its cross-entropy on some images is least.

    Its classes are the network's, so that what bounds its errors bounds the network's.
    """

    def __init__(self, model: nn.Module, images: Split) -> None:
        super().__init__()
        with torch.no_grad():
            logits = model(images.x).double()
        found = minimize_scalar(lambda power: float(F.cross_entropy(logits / 10**power, images.y)), bounds=(-2, 2))
        self.model, self.temperature = model, float(10**found.x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.model(x) / self.temperature
        return logits


def three_sides(model: nn.Module, images: Split, *, seed: int) -> Row:
    """Robust error, and the two bounds of it, as attacks find them.

    The first is the largest gap that the cross-entropy allows plus the share of images whose class changes in the ball;
    the second has, in place of that share, the mean of KL(f(x), f(x')) / psi(gap of f(x)), cut at 1, which it reaches
    where the class changes: TRADES's own divergence, weighted by how sure the network is.

    Source: Zhang et al., arXiv:1901.08573, Theorem 3.1; the least natural and surrogate risks are taken for 0.
    """
    on: Row = {"epsilon": EPSILON, "seed": seed, "index": images.index}
    with torch.no_grad():
        logits = model(images.x)
    predicted = logits.argmax(1)
    shown = attack(model, images.x, images.y, "pgd-40", **on)
    changed = attack(model, images.x, predicted, "pgd-40", **on)
    draws = Draws.start(seed, images.index, torch.zeros_like(images.index))
    crafted = TrainingContext(ThreatModel("Linf", EPSILON), draws, STEPS, 0.1).craft(
        model, images.x, predicted, loss="kl-divergence", start="gaussian"
    )
    divergence = torch.maximum(*(_divergence(model, logits, points) for points in (crafted, changed.x_adv)))
    ordered = logits.double().softmax(1).sort(1, descending=True).values
    weight = torch.from_numpy(psi((ordered[:, 0] - ordered[:, 1]).numpy()))
    with torch.no_grad():
        risk = float(F.cross_entropy(logits.double(), images.y))
    allowed, moved = largest_gap(risk), 1 - changed.robust_acc / 100
    return {
        "natural_error": 1 - shown.clean_acc / 100,
        "robust_error": 1 - shown.robust_acc / 100,
        "cross_entropy": risk,
        "allowed_error": allowed,
        "changed": moved,
        "divergence": float(divergence.mean()),
        "by_changes": allowed + moved,
        "by_divergence": allowed + float((divergence / weight).nan_to_num(nan=1.0).clamp_max(1.0).mean()),
        "n": len(images),
    }


def _divergence(model: nn.Module, logits: Tensor, points: Tensor) -> Tensor:
    """(N,) KL(f(x), f(x')) in float64."""
    with torch.no_grad():
        there = model(points).double().log_softmax(1)
    return F.kl_div(there, logits.double().log_softmax(1), reduction="none", log_target=True).sum(1)


def compute(inputs: Inputs, *, images: int, draws: int) -> StudyResult:
    """Both sides of Theorem 3.1 on ten classes, for models that come with the project.

    Args:
        images: of digits' test images. draws: random pairs of probabilities, for each number of classes.

    Source: Zhang et al., arXiv:1901.08573, Theorem 3.1.
    Deviations: ten classes, by cross-entropy, where the theorem has two.
    """
    chosen = digits_images("test", images, inputs)
    rows = [
        {"model": name, "temperature": one.temperature, **three_sides(one.eval(), chosen, seed=inputs.seed)}
        for name in MODELS
        for one in [Tempered(digits_model(name), chosen)]
    ]
    ratios = {classes: least_ratio(classes, draws=draws, seed=inputs.seed) for classes in CLASSES}
    comparisons = [
        Comparison(
            f"least KL / psi of random probabilities of {classes} classes",
            published=1.0,
            measured=ratio,
            relation=">=",
            within=1e-6,
            n=draws,
            source=SOURCE,
        )
        for classes, ratio in ratios.items()
    ]
    comparisons += [
        Comparison(
            f"least of {what} less {than}",
            published=0.0,
            measured=min(row[more] - row[less] for row in rows),
            relation=">=",
            within=1e-6,
            n=len(chosen),
            source=SOURCE,
        )
        for what, than, more, less in (
            ("the bound by changes of class", "the robust error", "by_changes", "robust_error"),
            ("the bound by the divergence", "that by changes", "by_divergence", "by_changes"),
        )
    ]
    return StudyResult(pd.DataFrame(rows), comparisons, _sentence(rows))


def _sentence(rows: Sequence[Row]) -> str:
    sides = ("robust_error", "by_changes", "by_divergence")
    said = [f"{row['model']} {', '.join(f'{100 * row[side]:.1f}' for side in sides)}" for row in rows]
    least, most = (bound(100 * (row["allowed_error"] - row["natural_error"]) for row in rows) for bound in (min, max))
    return (
        f"Robust error, its bound by changes of class, and that by the divergence (%): {'; '.join(said)}. "
        "Nearly all that the former is loose by is the natural error, of which cross-entropy says "
        f"{least:.0f} to {most:.0f} points too much."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Natural and robust error of each model, and what bounds the latter."""
    figure, axes = new_figure(6.4, 3.8)
    columns = {
        "natural_error": "natural error",
        "robust_error": "robust error",
        "by_changes": "bound by changes of class",
        "by_divergence": "bound by the divergence",
    }
    for place, (column, called) in enumerate(columns.items()):
        axes.plot(table["model"], table[column], linestyle="none", label=called, **series_style(place))
    axes.axhline(1.0, color="0.5", linewidth=0.8)
    axes.set(ylabel="share of the images", ylim=(0, None))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
