"""Capacity: what a small network and a larger one lose and gain by adversarial training."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from benchmark.report.figures import COLOURS
from benchmark.studies.points import chance
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import Accuracies, accuracies, digits_images, trained
from model_zoo.architectures.registry import build

NETWORKS = ("digits-small", "digits-cnn")
DEFENSES = ("natural", "madry")
SOURCE = "Madry et al. 2018, Section 4"
Found = Mapping[tuple[str, str], Accuracies]


def compute(inputs: Inputs, *, train: int, test: int, epochs: int) -> StudyResult:
    """Clean accuracy and that under PGD-20 of two networks, trained naturally and adversarially.

    Args:
        train, test: images of digits. epochs: of each training.

    Source: Madry et al., arXiv:1706.06083, Section 4.
    Deviations: digits and two networks, where the paper widens networks of MNIST and CIFAR-10 step by step.
    """
    learnt, images = digits_images("train", train, inputs), digits_images("test", test, inputs)
    found = {
        (network, defense): accuracies(
            trained(defense, learnt, seed=inputs.seed, epochs=epochs, architecture=network), images, seed=inputs.seed
        )
        for network in NETWORKS
        for defense in DEFENSES
    }
    rows = [
        {
            "network": network,
            "weights": sum(weight.numel() for weight in build(network, 10).parameters()),
            "training": defense,
            "clean_acc": one.clean,
            "robust_acc": one.robust,
            "n": one.n,
        }
        for (network, defense), one in found.items()
    ]
    return StudyResult(pd.DataFrame(rows), _comparisons(found), _sentence(found))


def _lost(found: Found, network: str) -> float:
    """Points of clean accuracy that adversarial training costs."""
    return found[network, "natural"].clean - found[network, "madry"].clean


def _comparisons(found: Found) -> list[Comparison]:
    small, large = NETWORKS
    n = found[small, "madry"].n
    gained = found[large, "madry"].robust - found[small, "madry"].robust
    return [
        Comparison(
            "robust accuracy that the larger network adds after adversarial training, beyond chance (points)",
            published=0.0,
            measured=gained - 100 * chance(0.5, n),
            relation=">=",
            n=n,
            source=SOURCE,
        ),
        Comparison(
            "clean accuracy that adversarial training costs the small network more than the larger (points)",
            published=0.0,
            measured=_lost(found, small) - _lost(found, large),
            relation=">=",
            n=n,
            source=SOURCE,
        ),
    ]


def _sentence(found: Found) -> str:
    said = [
        f"{network} loses {_lost(found, network):.1f} points of clean accuracy and withstands PGD-20 on "
        f"{found[network, 'madry'].robust:.1f}% of the images (naturally trained on "
        f"{found[network, 'natural'].robust:.1f}%)"
        for network in NETWORKS
    ]
    return f"By adversarial training {'; '.join(said)}."


def draw(table: pd.DataFrame) -> Figure:
    """Accuracies of both networks after both trainings."""
    figure = Figure(figsize=(7.5, 3.4))
    for axes, column, title in zip(
        figure.subplots(1, 2, sharey=True), ("clean_acc", "robust_acc"), ("clean", "PGD-20"), strict=True
    ):
        for place, (training, rows) in enumerate(table.groupby("training", sort=False)):
            at = [number + 0.36 * (place - 0.5) for number in range(len(rows))]
            axes.bar(at, rows[column], width=0.34, color=COLOURS[place], label=str(training))
        names = rows["network"] + "\n" + rows["weights"].map("{:,} weights".format)
        axes.set_xticks(range(len(rows)), list(names))
        axes.set(title=title, ylim=(0, 100))
        axes.set_axisbelow(True)
    figure.axes[0].set(ylabel="accuracy (%)")
    figure.axes[0].legend(frameon=True, loc="lower left")
    return figure
