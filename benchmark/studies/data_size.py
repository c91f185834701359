"""How much clean accuracy adversarial training costs, against the number of training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmark.data.split import Split, balanced_subset
from benchmark.report.figures import series_style
from benchmark.studies.points import chance
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import accuracies, recipe_of, some_images, trained

Row = dict[str, Any]
DEFENSES = ("natural", "madry")
SHARES = (1 / 16, 1 / 4, 1.0)
"""Of the training images that the study takes."""
SOURCE = "Raghunathan et al. 2020, Section 1: the gap closes with the number of samples (from memory, unverified)"


@dataclass(frozen=True)
class Setting:
    """A dataset with its network, threat and learning rate, and its share of the images and updates."""

    dataset: str
    architecture: str
    epsilon: float
    lr: float
    share: float


SETTINGS = (
    Setting("mnist", "strided-cnn", 0.1, 1e-3, 1.0),
    Setting("cifar10", "wrn-10-1", 4 / 255, 3e-3, 0.5),
)


def compute(inputs: Inputs, *, train: int, test: int, updates: int) -> StudyResult:
    """Clean accuracy, and that under PGD-20, of natural and adversarial training on more and more images.

    Every training makes as many updates, so that what differs is the number of different images.

    Args:
        train: the most images of MNIST; half of them of CIFAR-10.
        test: images.
        updates: of a training on MNIST; half of them on CIFAR-10.

    Source: Raghunathan et al., arXiv:2002.10716, Section 1 and Figure 2.
    Deviations: small networks, and CIFAR-10 within 4/255, which a few minutes of training learn.
    """
    rows: list[Row] = []
    for setting in SETTINGS:
        learnt, images = (
            some_images(setting.dataset, part, count, inputs)
            for part, count in (("train", round(setting.share * train)), ("test", test))
        )
        for size in (round(share * len(learnt)) for share in SHARES):
            few = balanced_subset(learnt, size, seed=inputs.seed)
            for defense in DEFENSES:
                shown = _accuracies(setting, defense, few, images, round(setting.share * updates), inputs.seed)
                rows.append({"dataset": setting.dataset, "train": size, "defense": defense, **shown})
    gaps = {setting.dataset: _gaps(rows, setting.dataset) for setting in SETTINGS}
    return StudyResult(
        pd.DataFrame(rows), [_comparison(name, gap, rows) for name, gap in gaps.items()], _sentence(gaps)
    )


def _accuracies(setting: Setting, defense: str, learnt: Split, images: Split, updates: int, seed: int) -> Row:
    recipe = recipe_of(setting.architecture, images=len(learnt), updates=updates, lr=setting.lr)
    on: Row = {"seed": seed, "epsilon": setting.epsilon}
    network = trained(defense, learnt, epochs=recipe.epochs, architecture=setting.architecture, recipe=recipe, **on)
    found = accuracies(network, images, **on)
    return {"epochs": recipe.epochs, "clean_acc": found.clean, "robust_acc": found.robust, "n": found.n}


def _gaps(rows: Sequence[Row], dataset: str) -> dict[int, float]:
    """By number of training images, the points of clean accuracy that adversarial training costs."""
    found = {(row["train"], row["defense"]): row["clean_acc"] for row in rows if row["dataset"] == dataset}
    return {size: found[size, "natural"] - found[size, "madry"] for size in sorted({size for size, _ in found})}


def _comparison(dataset: str, gaps: Mapping[int, float], rows: Sequence[Row]) -> Comparison:
    least, *_, most = gaps
    n = next(row["n"] for row in rows)
    return Comparison(
        f"gap in clean accuracy at {least} images of {dataset} less that at {most} (points)",
        published=0.0,
        measured=gaps[least] - gaps[most],
        relation=">=",
        within=100 * chance(0.1, n),
        n=n,
        source=SOURCE,
        why="with as many updates each, the most images are seen six times only, which adversarial training has not "
        "learnt by then",
    )


def _sentence(gaps: Mapping[str, Mapping[int, float]]) -> str:
    said = [
        f"on {dataset} {', '.join(f'{points:.1f} points at {size} images' for size, points in found.items())}"
        for dataset, found in gaps.items()
    ]
    return f"Adversarial training costs clean accuracy: {'; '.join(said)}."


def draw(table: pd.DataFrame) -> Figure:
    """Clean accuracy of both trainings against the number of training images."""
    figure = Figure(figsize=(8.5, 3.6))
    for axes, (dataset, rows) in zip(
        figure.subplots(1, table["dataset"].nunique(), squeeze=False)[0],
        table.groupby("dataset", sort=False),
        strict=True,
    ):
        for place, (defense, own) in enumerate(rows.groupby("defense", sort=False)):
            axes.plot(own["train"], own["clean_acc"], label=str(defense), **series_style(place))
        axes.set(xlabel="training images", title=str(dataset), xscale="log")
    figure.axes[0].set(ylabel="clean accuracy (%)")
    figure.axes[0].legend(frameon=False, loc="lower right")
    return figure
