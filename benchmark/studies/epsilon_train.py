"""Training against larger and larger epsilons: what Madry training loses, and what friendly training keeps."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from benchmark.report.figures import series_style
from benchmark.studies.points import chance
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.training import EPSILON, Accuracies, accuracies, digits_images, trained

EPSILONS = (0.05, 0.1, 0.2, 0.3, 0.4)
DEFENSES = ("madry", "fat")
SOURCE = "Zhang et al. 2020 (FAT), Section 5, training epsilon"
Found = Mapping[tuple[str, float], Accuracies]


def compute(inputs: Inputs, *, train: int, test: int, epochs: int) -> StudyResult:
    """Clean accuracy and that under PGD-20 at epsilon 0.2, of networks trained against several epsilons.

    Args:
        train, test: images of digits. epochs: of each training.

    Source: Zhang et al., arXiv:2002.11242, Section 5.
    Deviations: digits and a small network, where the paper has CIFAR-10 and SVHN.
    """
    learnt, images = digits_images("train", train, inputs), digits_images("test", test, inputs)
    found = {
        (defense, epsilon): accuracies(
            trained(defense, learnt, seed=inputs.seed, epochs=epochs, epsilon=epsilon), images, seed=inputs.seed
        )
        for defense in DEFENSES
        for epsilon in EPSILONS
    }
    rows = [
        {"defense": defense, "epsilon_train": epsilon, "clean_acc": one.clean, "robust_acc": one.robust, "n": one.n}
        for (defense, epsilon), one in found.items()
    ]
    return StudyResult(pd.DataFrame(rows), _comparisons(found), _sentence(found))


def _comparisons(found: Found) -> list[Comparison]:
    least, most, n = EPSILONS[0], EPSILONS[-1], found["madry", EPSILONS[0]].n
    why = "the difference lies within chance, or the training is too short to show it"
    return [
        Comparison(
            f"clean accuracy of madry at epsilon {least:g} less at {most:g}, beyond chance (points)",
            published=0.0,
            measured=found["madry", least].clean - found["madry", most].clean - 100 * chance(0.05, n),
            relation=">=",
            n=n,
            source=SOURCE,
            why=why,
        ),
        Comparison(
            f"clean accuracy of fat less that of madry at epsilon {most:g}, beyond chance (points)",
            published=0.0,
            measured=found["fat", most].clean - found["madry", most].clean - 100 * chance(0.05, n),
            relation=">=",
            n=n,
            source=SOURCE,
            why=why,
        ),
    ]


def _sentence(found: Found) -> str:
    said = [
        f"{defense} from {found[defense, EPSILONS[0]].clean:.1f} to {found[defense, EPSILONS[-1]].clean:.1f}%"
        for defense in DEFENSES
    ]
    robust = []
    for defense in DEFENSES:
        best, epsilon = max((found[defense, epsilon].robust, epsilon) for epsilon in EPSILONS)
        robust.append(f"{defense} {best:.1f}% (trained at {epsilon:g})")
    return (
        f"From epsilon {EPSILONS[0]:g} to {EPSILONS[-1]:g} the clean accuracy of {' and of '.join(said)}; the most "
        f"robust under PGD-20 at {EPSILON:g}: {', '.join(robust)}."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Clean and robust accuracy against the epsilon of the training."""
    figure = Figure(figsize=(8.5, 3.6))
    for axes, column, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("clean_acc", "robust_acc"),
        ("clean", f"PGD-20 at {EPSILON:g}"),
        strict=True,
    ):
        for place, (defense, rows) in enumerate(table.groupby("defense", sort=False)):
            axes.plot(rows["epsilon_train"], rows[column], label=str(defense), **series_style(place))
        axes.set(xlabel="epsilon of the training", title=title, ylim=(0, 100))
    figure.axes[0].set(ylabel="accuracy (%)")
    figure.axes[0].legend(frameon=False, loc="lower left")
    return figure
