"""One strong feature and many weak ones: what the weak ones add to accuracy is what an attack takes."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.report.figures import COLOURS, series_style
from benchmark.studies.fitting import fit
from benchmark.studies.points import BinaryClassifier, Pixels, chance, generator, linear_classifier, measured_errors
from benchmark.studies.study import Comparison, Inputs, StudyResult
from model_zoo.defenses.registry import defense_spec
from model_zoo.training.recipe import Recipe

Row = dict[str, float]
SOURCE = "Tsipras et al. 2019, Section 2.1"
PIXELS = Pixels(20.0)
WEAK, STRONG, MIXED = "mean of the weak features", "strong feature", "mixed"
NATURAL, ADVERSARIAL = "natural training", "adversarial training"
MIXES = (0.5, 1.0, 2.0)
"""Weights of the strong feature beside eta times that of each weak one."""
RECIPE = Recipe("linear", 12, 250, "adam", 0.02, [(7, 2e-3), (10, 2e-4)], inner_steps=1, inner_rel_step_size=2.0)
"""One step across the ball is the worst case of a linear classifier."""


def draw_points(n: int, *, p: float, d: int, eta: float, seed: int, part: int) -> tuple[Tensor, Tensor]:
    """z (n, d + 1) and y (n,) of 0 and 1: z_1 is +-1 and right with probability p, the others are N(+-eta, 1).

    Source: Tsipras et al., arXiv:1805.12152, Equation 3.
    """
    draws = generator(seed, part)
    y = torch.randint(2, (n,), generator=draws)
    sign = 2.0 * y - 1
    right = torch.rand(n, generator=draws) < p
    weak = sign[:, None] * eta + torch.randn(n, d, generator=draws)
    return torch.cat([torch.where(right, sign, -sign)[:, None], weak], 1), y


def compute(inputs: Inputs, *, p: float, d: int, strength: float, train: int, test: int) -> StudyResult:
    """Accuracies of linear classifiers, given and trained, under an attack of twice the weak features' mean.

    Args:
        p: how often the strong feature is right. d: how many weak features. strength: eta * sqrt(d).
        train, test: points.

    Source: Tsipras et al., arXiv:1805.12152, Section 2.1, Theorem 2.1.
    Deviations: classifiers are trained by cross-entropy, not by the hinge loss.
    """
    eta = strength / math.sqrt(d)
    learnt, (z, y) = (
        draw_points(n, p=p, d=d, eta=eta, seed=inputs.seed, part=part) for part, n in enumerate((train, test))
    )
    classifiers = {**_given(d, eta), **_trained(learnt, 2 * eta, inputs.seed)}
    rows: dict[str, Row] = {}
    for name, classifier in classifiers.items():
        found = measured_errors(classifier, z, y, "fgsm", epsilon=2 * eta, seed=inputs.seed)
        weight = next(classifier.score.parameters()).detach().abs().flatten()
        rows[name] = {
            "weight_of_strong": float(weight[0] / weight.sum()),
            "standard_accuracy": 100 * (1 - found.natural),
            "robust_accuracy": 100 * (1 - found.robust),
            "bound": min(100.0, 100 * p / (1 - p) * found.natural),
        }
    table = pd.DataFrame([{"classifier": name, **row, "n": test} for name, row in rows.items()])
    return StudyResult(table, _comparisons(rows, p, test), _sentence(rows))


def _given(d: int, eta: float) -> dict[str, BinaryClassifier]:
    """The mean of the weak features, the strong one, and mixtures of both."""
    weak, strong = torch.full((d + 1,), eta), torch.zeros(d + 1)
    weak[0], strong[0] = 0.0, 1.0
    mixed = {f"{MIXED} {share:g}": weak + share * strong * eta**2 * d for share in MIXES}
    return {name: linear_classifier(weight, PIXELS) for name, weight in {WEAK: weak, **mixed, STRONG: strong}.items()}


def _trained(points: tuple[Tensor, Tensor], epsilon: float, seed: int) -> dict[str, BinaryClassifier]:
    z, y = points
    x = PIXELS.images(z, epsilon)
    images = Split("feature-model", "train", x, y, torch.arange(len(y)), 2)
    threat = ThreatModel("Linf", epsilon / PIXELS.width)
    trained = {}
    for name, defense in ((NATURAL, "natural"), (ADVERSARIAL, "madry")):
        layer = nn.Linear(z.shape[1], 1, bias=False)
        nn.init.zeros_(layer.weight)
        model = BinaryClassifier(layer, PIXELS)
        fit(model, images, defense_spec(defense), RECIPE, threat, seed=seed)
        trained[name] = model
    return trained


def _comparisons(rows: Mapping[str, Row], p: float, n: int) -> list[Comparison]:
    room = 100 * chance(0.0013, n)
    shown = [
        Comparison(
            f"{kind} accuracy of the weak features (%)",
            published=value,
            measured=rows[WEAK][f"{kind}_accuracy"],
            within=room + 0.005,
            n=n,
            source=SOURCE,
        )
        for kind, value in (("standard", 99.87), ("robust", 0.13))
    ]
    above = max(row["robust_accuracy"] - row["bound"] for row in rows.values())
    shown.append(
        Comparison(
            "largest robust accuracy above p / (1 - p) times the standard error (points)",
            published=0.0,
            measured=above,
            relation="<=",
            within=100 * chance(1 - p, n) * p / (1 - p),
            n=n,
            source="Tsipras et al. 2019, Theorem 2.1",
        )
    )
    grown = rows[ADVERSARIAL]["weight_of_strong"] - rows[NATURAL]["weight_of_strong"]
    shown.append(
        Comparison(
            "share of the strong feature's weight that adversarial training adds",
            published=0.0,
            measured=grown,
            relation=">=",
            n=n,
            source="Tsipras et al. 2019, Section 2.2",
        )
    )
    return shown


def _sentence(rows: Mapping[str, Row]) -> str:
    def say(name: str) -> str:
        row = rows[name]
        return f"{row['standard_accuracy']:.2f}%, under attack on {row['robust_accuracy']:.2f}%"

    shares = {name: f"{100 * rows[name]['weight_of_strong']:.1f}% of the weight" for name in (NATURAL, ADVERSARIAL)}
    return (
        f"The mean of the weak features is right on {say(WEAK)} of the points; the strong feature on {say(STRONG)}. "
        f"Natural training gives the strong feature {shares[NATURAL]} and is right on {say(NATURAL)}; adversarial "
        f"training {shares[ADVERSARIAL]} and {say(ADVERSARIAL)}."
    )


def draw(table: pd.DataFrame) -> Figure:
    """The strong feature's share of the weights of both trained classifiers; accuracies beside the bound."""
    figure = Figure(figsize=(9, 3.8))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    trained = table[table["classifier"].isin([NATURAL, ADVERSARIAL])]
    names = [name.replace(" ", "\n") for name in trained["classifier"]]
    left.bar(names, 100 * trained["weight_of_strong"], color=COLOURS[:2], width=0.6)
    left.set(ylabel="strong feature's share of all weights (%)", ylim=(0, 100))
    left.set_axisbelow(True)
    _accuracies(right, table)
    return figure


def _accuracies(axes: Axes, table: pd.DataFrame) -> None:
    standard = np.linspace(table["standard_accuracy"].min() - 0.2, 100, 50)
    slope = (table["bound"] / (100 - table["standard_accuracy"])).replace(np.inf, np.nan).max()
    axes.plot(standard, np.minimum(100, slope * (100 - standard)), color="black", linewidth=1, label="bound")
    kinds = (WEAK, MIXED, STRONG, NATURAL, ADVERSARIAL)
    for place, kind in enumerate(kinds):
        rows = table[table["classifier"].str.startswith(kind)]
        axes.plot(
            rows["standard_accuracy"], rows["robust_accuracy"], linestyle="none", label=kind, **series_style(place)
        )
    axes.set(xlabel="standard accuracy (%)", ylabel="robust accuracy (%)", ylim=(-3, 103))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
