"""What is known of a mask: what it does to a network, and what an adaptive attack on it searches on."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

Build = Callable[[nn.Module, int, tuple[int, int, int], float], nn.Module]
"""A network, its number of classes, the shape (C, H, W) of its images and the mask's setting to the masked network."""


@runtime_checkable
class Learner(Protocol):
    """A part of a mask that learns beside the network."""

    def own_loss(self, x: Tensor, y: Tensor, /) -> Tensor:
        """A scalar, of images (N, C, H, W) in [0, 1] and their classes (N,)."""


@dataclass(frozen=True)
class MaskSpec:
    """A defense that masks gradients.

    Args:
        name: of the defense; with a value of its setting behind it, of an architecture: BASE+NAME-VALUE.
        build: the masked network, whose state dict holds all that it learns; the network may be changed.
        surrogate: from a masked network in eval mode to what an adaptive attack searches on: the same classes wherever
            possible, and a gradient that leads somewhere. It may share weights with it.
        setting: what the value is; settings: those that the shipped models have, the authors' first.
        randomized: whether it answers at random.
        rejects: whether it may reject an image, by a logit behind those of the classes.
        version: of the surrogate; one more with whatever moves the numbers of adaptive attacks.
        paper: where it was proposed; broken_by: where it was shown to fall, and how.
        summary: one line for `list defenses`.
    """

    name: str
    _: KW_ONLY
    build: Build
    surrogate: Callable[[nn.Module], nn.Module]
    setting: str
    settings: Sequence[float]
    paper: str
    broken_by: str
    summary: str
    randomized: bool = False
    rejects: bool = False
    version: int = 1
