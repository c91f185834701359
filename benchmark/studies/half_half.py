"""Standard, half-half and robust training, each attacked at the epsilon that it was trained against."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmark.data.split import Split
from benchmark.report.figures import series_style
from benchmark.studies.points import chance
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import accuracies, recipe_of, some_images, trained
from benchmark.suites.published import FIGURES

Row = dict[str, Any]
DEFENSES = {"natural": "standard", "half-half": "half-half", "madry": "robust"}
"""By the name of a defense, what the published table calls it."""
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
"""By the name of a dataset, what it calls that."""
WARM_UP = 0.4
"""Of a training: without it MNIST within 0.3 is not learnt."""
SOURCE = "Tsipras et al., ICLR 2019, table of standard, half-half and robust training (lecture slides)"


@dataclass(frozen=True)
class Setting:
    """A dataset with its network, learning rate and balls, and its share of the images and updates.

    Args:
        epsilons: as the published table writes them, and in pixel scale.
    """

    dataset: str
    architecture: str
    norm: str
    epsilons: Sequence[tuple[str, float]]
    lr: float
    share: float

    @property
    def title(self) -> str:
        """The dataset as the published table calls it, and the norm."""
        return f"{TITLES[self.dataset]}, {self.norm}"


SETTINGS = (
    Setting("mnist", "strided-cnn", "Linf", (("0.1", 0.1), ("0.2", 0.2), ("0.3", 0.3)), 1e-3, 1.0),
    Setting("mnist", "strided-cnn", "L2", (("0.5", 0.5), ("1.5", 1.5), ("2.5", 2.5)), 1e-3, 1.0),
    Setting("cifar10", "wrn-10-1", "Linf", (("2/255", 2 / 255), ("4/255", 4 / 255), ("8/255", 8 / 255)), 3e-3, 0.3),
)


def compute(inputs: Inputs, *, train: int, test: int, updates: int) -> StudyResult:
    """Clean accuracy, and that under PGD-20, of three trainings at growing epsilon.

    Args:
        train: images of MNIST; three tenths of them of CIFAR-10. test: images of either.
        updates: of a training on MNIST; three tenths of them on CIFAR-10.

    Source: Tsipras et al., arXiv:1805.12152, Section 2 and its table.
    Deviations: small networks and few updates; CIFAR-10 under Linf alone.
    """
    rows: list[Row] = []
    for setting in SETTINGS:
        learnt, images = (
            some_images(setting.dataset, part, count, inputs)
            for part, count in (("train", round(setting.share * train)), ("test", test))
        )
        rows += _rows(setting, learnt, images, round(setting.share * updates), inputs.seed)
    comparisons = [one for setting in SETTINGS for one in _comparisons(setting, rows)]
    return StudyResult(pd.DataFrame(rows), comparisons, _sentence(rows))


def _rows(setting: Setting, learnt: Split, images: Split, updates: int, seed: int) -> list[Row]:
    """A row an epsilon and defense; the network of standard training is the same for all epsilons."""
    rows = []
    sized: Row = {"images": len(learnt), "updates": updates, "lr": setting.lr}
    standard = _trained("natural", setting, learnt, setting.epsilons[0][1], sized, seed)
    for words, epsilon in setting.epsilons:
        for defense, called in DEFENSES.items():
            network = standard if defense == "natural" else _trained(defense, setting, learnt, epsilon, sized, seed)
            found = accuracies(network, images, seed=seed, epsilon=epsilon, norm=setting.norm)
            published = {
                figure.attack: figure.published
                for figure in FIGURES
                if (figure.suite, figure.row) == ("tsipras", f"{setting.title} {words}, {called}")
            }
            rows.append(
                {
                    "title": setting.title,
                    "epsilon": epsilon,
                    "training": called,
                    "clean_acc": found.clean,
                    "robust_acc": found.robust,
                    "n": found.n,
                    "published_clean": published["clean"],
                    "published_robust": published["PGD"],
                }
            )
    return rows


def _trained(defense: str, setting: Setting, learnt: Split, epsilon: float, sized: Row, seed: int) -> Any:
    recipe = recipe_of(setting.architecture, warm_up=WARM_UP, **sized)
    chosen: Row = {"epochs": recipe.epochs, "architecture": setting.architecture, "recipe": recipe}
    return trained(defense, learnt, seed=seed, epsilon=epsilon, norm=setting.norm, **chosen)


def _comparisons(setting: Setting, rows: Sequence[Row]) -> list[Comparison]:
    """What the published table shows at the largest epsilon: which training is ahead of which, and in what."""
    most = setting.epsilons[-1][1]
    at = {row["training"]: row for row in rows if (row["title"], row["epsilon"]) == (setting.title, most)}
    ahead = (
        ("clean", "clean_acc", "half-half", "robust"),
        ("robust", "robust_acc", "robust", "half-half"),
        ("robust", "robust_acc", "half-half", "standard"),
    )
    return [
        Comparison(
            f"{setting.title} {setting.epsilons[-1][0]}: {what} accuracy of {first} less {second}",
            published=0.0,
            measured=at[first][column] - at[second][column],
            relation=">=",
            within=100 * chance(at[first][column] / 100, at[first]["n"]),
            n=at[first]["n"],
            source=SOURCE,
            why="small networks, trained for a few hundred updates",
        )
        for what, column, first, second in ahead
    ]


def _sentence(rows: Sequence[Row]) -> str:
    """Clean and robust accuracy of each training at the largest epsilon of each setting."""
    last = {(row["title"], row["training"]): row for row in rows}
    said: dict[str, list[str]] = {}
    for (title, training), row in last.items():
        said.setdefault(f"{title} {row['epsilon']:.3g}", []).append(
            f"{training} {row['clean_acc']:.1f} and {row['robust_acc']:.1f}"
        )
    return "Clean accuracy and that under PGD-20 (%): " + "; ".join(
        f"{title}: {', '.join(each)}" for title, each in said.items()
    )


def draw(table: pd.DataFrame) -> Figure:
    """Robust accuracy against epsilon (full) and clean accuracy (dashed) of each training, a panel a setting."""
    titles = list(dict.fromkeys(table["title"]))
    figure = Figure(figsize=(3.6 * len(titles), 3.6))
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False, sharey=True)[0], titles, strict=True):
        shown = table[table["title"] == title]
        for place, (training, own) in enumerate(shown.groupby("training", sort=False)):
            style = series_style(place)
            axes.plot(own["epsilon"], own["robust_acc"], label=str(training), **style)
            axes.plot(own["epsilon"], own["clean_acc"], **{**style, "linestyle": "--"})
        axes.set(xlabel="epsilon", title=title)
    figure.axes[0].set(ylabel="accuracy (%): under PGD-20, clean (dashed)")
    figure.axes[-1].legend(frameon=False, loc="upper right")
    return figure
