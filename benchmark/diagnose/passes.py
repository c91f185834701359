"""Passes of a direct check: part by part, and of a randomised model with the randomness held fixed."""

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.generators import seeded
from attacks.losses import logit_margin
from attacks.oracle import Classifier

BATCH = 250
"""Images of one pass, where the caller knows no better."""


def in_parts(measure: Callable[..., Tensor], batch_size: int, *images: Tensor) -> Tensor:
    """(..., N) what a measure says of each image, by passes of so many images.

    Args:
        images: tensors whose first axis is the image.
    """
    parts = zip(*(tensor.split(batch_size) for tensor in images), strict=True)
    return torch.cat([measure(*part) for part in parts], -1)


def margin(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """(N,) logit margins; a randomised model meets the same draws at every call."""
    with seeded("diagnosis"):
        return logit_margin(model(x).float(), y)
