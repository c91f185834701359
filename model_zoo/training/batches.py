"""Which images make up the batches of an epoch: labelled ones, and beside them those of a pool."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class LabelledImages(Protocol):
    """x (N, C, H, W) in [0, 1], y (N,) labels, index (N,) in the dataset."""

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def index(self) -> Tensor: ...
    @property
    def classes(self) -> int: ...


@dataclass(frozen=True)
class Images:
    """What is trained on: x, y and index of all images, of which the first `labelled` have labels of their own."""

    x: Tensor
    y: Tensor
    index: Tensor
    labelled: int

    def labelled_in_batch(self, batch_size: int) -> int:
        """How many images of a batch have labels of their own: all, or half beside a pool."""
        return batch_size if self.labelled == len(self.y) else max(batch_size // 2, 1)


def all_images(images: LabelledImages, pool: LabelledImages | None, device: torch.device) -> Images:
    """The labelled images, then those of the pool."""
    parts = [images] if pool is None else [images, pool]
    x, y, index = (torch.cat([getattr(part, name) for part in parts]).to(device) for name in ("x", "y", "index"))
    return Images(x, y, index, len(images.y))


def batches(images: Images, batch_size: int) -> Iterator[Tensor]:
    """Places of images, batch by batch, by torch's global generator.

    Every labelled image comes once, and beside it one of the pool's, which is gone round as often as it takes.
    """
    size = images.labelled_in_batch(batch_size)
    own = torch.randperm(images.labelled).split(size)
    pooled = len(images.y) - images.labelled
    if not pooled:
        yield from own
        return
    rounds = math.ceil(images.labelled / pooled)
    around = torch.cat([torch.randperm(pooled) for _ in range(rounds)])[: images.labelled] + images.labelled
    for labelled, others in zip(own, around.split(size), strict=True):
        yield torch.cat([labelled, others])
