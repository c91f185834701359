"""What friendly adversarial training saves: backward passes an image, epoch by epoch, beside its full counterparts."""

import pandas as pd
from matplotlib.figure import Figure

from benchmark.report.figures import new_figure, series_style
from benchmark.studies.study import Comparison, Inputs, StudyResult
from model_zoo.registry import SHIPPED

PAIRS = (
    ("cifar10", "fat", "madry"),
    ("mnist", "fat", "madry"),
    ("mnist", "fat-trades-b6", "trades-b1"),
    ("digits", "fat-mart", "mart"),
    ("digits", "gair-fat", "gairat"),
)
"""A suite, a training whose images stop early, and one of the same steps in which none does."""
SOURCE = "Zhang et al. 2020 (FAT), Section 4"


def curve(suite: str, name: str) -> pd.DataFrame:
    """A shipped model's learning curve: epoch, and backward passes an image, its updates counted."""
    found: pd.DataFrame = pd.read_csv(SHIPPED / suite / f"{name}.csv")[["epoch", "backwards_per_image"]]
    return found.assign(suite=suite, model=name)


def compute(inputs: Inputs) -> StudyResult:  # noqa: ARG001 (the curves come with the models)
    """Passes of the trainings of models that come with the project, as their learning curves recorded them.

    Source: Zhang et al., arXiv:2002.11242, Section 4 and Algorithm 2.
    Deviations: smaller networks and fewer epochs.
    """
    curves = {(suite, name): curve(suite, name) for suite, *pair in PAIRS for name in pair}
    comparisons, said = [], []
    for suite, early, full in PAIRS:
        passes = curves[suite, early]["backwards_per_image"]
        mean, all_steps = float(passes.mean()), float(curves[suite, full]["backwards_per_image"].mean())
        said.append(f"{suite}/{early} {mean:.1f} ({full} {all_steps:.1f})")
        for what, measured, relation in (
            (f"of {suite}/{early} over those of {full}", mean / all_steps, "<="),
            (f"of {suite}/{early}, last epoch over first", float(passes.iloc[-1] / passes.iloc[0]), ">="),
        ):
            comparisons.append(
                Comparison(
                    f"passes {what}", published=1.0, measured=measured, relation=relation, n=len(passes), source=SOURCE
                )
            )
    table = pd.concat(curves.values(), ignore_index=True)[["suite", "model", "epoch", "backwards_per_image"]]
    return StudyResult(table, comparisons, f"Backward passes an image and epoch, on average: {', '.join(said)}.")


def draw(table: pd.DataFrame) -> Figure:
    """Passes over the training; where images stop early, and dotted where none does."""
    figure, axes = new_figure(6, 3.8)
    for place, (suite, early, full) in enumerate(PAIRS):
        colour = series_style(place)["color"]
        for name, line in ((early, "-"), (full, ":")):
            rows = table[(table["suite"] == suite) & (table["model"] == name)]
            share = 100 * rows["epoch"] / rows["epoch"].max()
            axes.plot(share, rows["backwards_per_image"], line, color=colour, linewidth=1.2, label=f"{suite}/{name}")
    axes.set(xlabel="share of the training (%)", ylabel="backward passes an image", ylim=(0, None))
    axes.legend(frameon=False, ncols=2, fontsize=7)
    return figure
