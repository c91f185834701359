"""The learning curve as a picture: accuracy and loss by epoch, and what the epochs cost."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_zoo.files.atomic import atomic_write, file_of

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"
"""Okabe and Ito's colours, which the colour-blind tell apart."""


def draw_curve(stem: Path) -> None:
    """Draw STEM.csv, the curve that `training.train` writes, as STEM.png.

    Clean and robust accuracy (percent) on the validation images, and below it the mean loss
    of training; the axis on top counts the backward passes that each labelled image has cost so far.
    """
    curve = pd.read_csv(file_of(stem, ".csv"))
    figure = Figure(figsize=(6, 5), dpi=150, layout="constrained")
    accuracy, loss = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    accuracy.set_title(stem.name)
    accuracy.plot(curve["epoch"], curve["validation_clean"], color=BLUE, marker="o", markersize=3, label="clean")
    accuracy.plot(curve["epoch"], curve["validation_robust"], color=VERMILION, marker="s", markersize=3, label="robust")
    accuracy.set_ylim(0, 100)
    accuracy.set_ylabel("validation accuracy (%)")
    accuracy.legend(loc="best", frameon=False)
    loss.plot(curve["epoch"], curve["loss"], color=GREY, marker="o", markersize=3)
    loss.set_ylabel("training loss")
    loss.set_xlabel("epoch")
    loss.xaxis.set_major_locator(MaxNLocator(integer=True))
    passes = curve["backwards_per_image"].cumsum()
    cost = accuracy.secondary_xaxis("top")
    shown = curve["epoch"][:: max(1, len(curve) // 6)]
    cost.set_xticks(shown.to_list(), [f"{passes[place]:.0f}" for place in shown.index])
    cost.set_xlabel("backward passes per image, so far")
    for axes in (accuracy, loss):
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    atomic_write(file_of(stem, ".png"), picture.getvalue())
