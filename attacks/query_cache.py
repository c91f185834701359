"""Which points a query attack has asked about already: of those it need not ask again.

Small images are asked about the same point over and over: of the 353,000 changes that Square tries on 100 digits (8x8
pixels, the Madry model) 43% move nothing, and 42% lead to points that were asked about before.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 256
"""Values (channels times pixels) of the largest images that are worth it."""

SLOTS_BITS = 11
"""A point's key has one slot of 2 ** 11; the key that comes later takes it. So what is forgotten is asked again."""

NOTHING = 1
"""No point's key: a key is a sum of even numbers."""


@dataclass(frozen=True)
class QueryCache:
    """Keys of points, image by image.

    Args:
        keys: (N, slots) int64; of no slots where nothing is remembered.
        trusted: (N,) bool: asked about one point twice, the classifier gave one answer.
    """

    keys: Tensor
    trusted: Tensor

    @staticmethod
    def empty(x: Tensor, *, remembers: bool) -> "QueryCache":
        """For images (N, C, H, W) none of whose points has been asked about; it stays empty for large ones."""
        slots = 1 << SLOTS_BITS if remembers and x[0].numel() <= LARGEST else 0
        keys = torch.full((len(x), slots), NOTHING, dtype=torch.int64, device=x.device)
        return QueryCache(keys, torch.ones(len(x), dtype=torch.bool, device=x.device))

    @property
    def remembers(self) -> bool:
        """Whether anything is ever kept."""
        return self.keys.shape[1] > 0

    def knows(self, rows: Tensor, keys: Tensor) -> Tensor:
        """(M, Q) bool: whether the points with these keys (M, Q) of the images `rows` (M,) were asked about."""
        return (self.keys[rows[:, None], _slot(keys)] == keys) & self.trusted[rows, None]

    def copy(self) -> "QueryCache":
        """One to note points in, while this one stays as it is."""
        return QueryCache(self.keys.clone(), self.trusted.clone())

    def note(self, rows: Tensor, keys: Tensor) -> None:
        """Remember a point of key (M,) of each of the images `rows` (M,), none of them twice; this one is changed."""
        self.keys[rows, _slot(keys)] = keys

    def distrust(self, rows: Tensor) -> None:
        """Know nothing of the images `rows` (M,) from now on; this one is changed."""
        self.trusted[rows] = False


def key_of(points: Tensor) -> Tensor:
    """(...,) int64 keys of points (..., C, H, W) float32; two points have the same by a rare chance only.

    A sum of the pixels' bits, each times a random number of its own, modulo 2 ** 64: the same in any batch.
    """
    bits = (points + 0.0).contiguous().view(torch.int32).flatten(-3).long()  # + 0.0, for -0.0 is the same point
    return 2 * (bits * _factors(bits.shape[-1]).to(bits.device)).sum(-1)


@functools.cache
def _factors(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(1 << 62), 1 << 62, (count,), generator=generator) | 1


def _slot(keys: Tensor) -> Tensor:
    """The highest bits, which depend on all others."""
    return (keys >> (64 - SLOTS_BITS)) & ((1 << SLOTS_BITS) - 1)
