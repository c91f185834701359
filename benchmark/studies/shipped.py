"""Models of digits that come with the project, and which images an attack breaks of one, by radius."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from attacks.api import attack
from benchmark.data.split import Split
from model_zoo.load import load_model
from model_zoo.registry import SHIPPED, models_of


def digits_model(name: str) -> nn.Module:
    """The model of digits of that name."""
    return load_model(models_of("digits", SHIPPED)[name], SHIPPED, classes=10)


def broken_within(
    model: nn.Module, images: Split, name: str, radii: Sequence[float], *, seed: int
) -> tuple[NDArray[np.bool_], float]:
    """Which images (N, R) an attack breaks within each radius, ascending, or are misclassified; its most passes.

    A larger ball has all points of a smaller one, so what is broken stays broken.
    """
    broken, most = np.zeros((len(images), len(radii)), np.bool_), 0.0
    for place, radius in enumerate(radii):
        shown = attack(model, images.x, images.y, name, epsilon=radius, seed=seed, index=images.index)
        broken[:, place] = ~shown.robust.numpy()
        most = max(most, float((shown.forwards + shown.backwards).max()))
    return np.logical_or.accumulate(broken, 1), most
