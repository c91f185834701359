"""Robust overfitting: long adversarial training goes on to gain on training images, and to lose on others."""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from benchmark.report.figures import new_figure, series_style
from benchmark.studies.points import chance
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import RECIPE, accuracies, digits_images, trained

SOURCE = "Rice et al. 2020, Section 3 (from memory, unverified)"


def compute(inputs: Inputs, *, train: int, test: int, epochs: int, every: int) -> StudyResult:
    """Accuracies under PGD-20 on training and test images along one training at a constant learning rate.

    Args:
        train, test: images of digits. epochs: of the training. every: so many epochs it is attacked.

    Source: Rice et al., arXiv:2002.11569, Section 3.
    Deviations: digits, few images and Adam at a constant rate, where the paper has CIFAR-10 and steps of the rate.
    """
    learnt, images = digits_images("train", train, inputs), digits_images("test", test, inputs)
    rows: list[dict[str, float]] = []

    def watch(epoch: int, network: nn.Module) -> None:
        if epoch % every:
            return
        row: dict[str, float] = {"epoch": epoch}
        for name, split in (("train", learnt), ("test", images)):
            found = accuracies(network, split, seed=inputs.seed)
            row |= {f"{name}_clean": found.clean, f"{name}_robust": found.robust}
        rows.append(row)

    trained("madry", learnt, seed=inputs.seed, epochs=epochs, recipe=replace(RECIPE, milestones=[]), watch=watch)
    best, last = max(rows, key=lambda row: row["test_robust"]), rows[-1]
    comparisons = [
        Comparison(
            "robust test accuracy of the best epoch less that of the last, beyond chance (points)",
            published=0.0,
            measured=best["test_robust"] - last["test_robust"] - 100 * chance(0.5, len(images)),
            relation=">=",
            n=len(images),
            source=SOURCE,
            why="within these epochs no accuracy is lost beyond chance",
        ),
        Comparison(
            "robust training accuracy of the last epoch less that of the best test epoch (points)",
            published=0.0,
            measured=last["train_robust"] - best["train_robust"],
            relation=">=",
            n=len(learnt),
            source=SOURCE,
        ),
    ]
    sentence = (
        f"From epoch {best['epoch']:.0f} to {last['epoch']:.0f} the robust accuracy on training images goes from "
        f"{best['train_robust']:.1f} to {last['train_robust']:.1f}%, and on test images from {best['test_robust']:.1f} "
        f"to {last['test_robust']:.1f}%."
    )
    return StudyResult(pd.DataFrame(rows), comparisons, sentence)


def draw(table: pd.DataFrame) -> Figure:
    """Robust and clean accuracy, on training and test images, against the epochs."""
    figure, axes = new_figure(6, 3.8)
    for place, name in enumerate(("train", "test")):
        style = series_style(place)
        axes.plot(table["epoch"], table[f"{name}_robust"], label=f"{name}, PGD-20", **{**style, "markersize": 3})
        axes.plot(table["epoch"], table[f"{name}_clean"], ":", label=f"{name}, clean", color=style["color"])
    axes.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 101))
    axes.legend(frameon=False)
    return figure
