"""Split: the images a number is measured on, and seeded selections from them, the same on every machine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.errors import InputError

_GOLDEN = 0x9E3779B97F4A7C15  # the increment of splitmix64
WIDER = 1000
"""The most images of a wider selection."""
_SUBSET_STREAM, _CLASS_STREAM, _HOLDOUT_STREAM, _ORDER_STREAM = 1, 2, 3, 4


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: a whole part of a dataset, or a selection from it.

    Attributes:
        part: "train" or "test".
        x: float32 (N, C, H, W) in [0, 1]; or `LazyImages`, which answer as a tensor does to what a sweep asks of it,
            and are decoded only then.
        y: int64 (N,) in [0, classes).
        index: int64 (N,), ascending: where each image stands in the whole part. Draws and selections are keyed by it.
        names: of the classes, in the order of the logits, where they are not those of the dataset.
        wider: a larger selection, for what is asked of a model by clean passes alone; None where there is none.
        origin: digest of the whole part that a selection is from; "" where that is not known.
    """

    dataset: str
    part: str
    x: Tensor
    y: Tensor
    index: Tensor
    classes: int
    names: Sequence[str] = ()
    wider: "Split | None" = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.y)

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and indices, on a device."""
        return self.x.to(device), self.y.to(device), self.index.to(device)

    @cached_property
    def digest(self) -> str:
        """sha256, in hex, of the images, labels and indices (with their shapes); the rest is no part of it.

        For images that are decoded when they are needed the checksum of each stands.
        """
        sha = hashlib.sha256()
        checksums = getattr(self.x, "checksums", None)
        x = self.x.cpu().numpy() if checksums is None else checksums
        for values, dtype in ((x, "<f4" if checksums is None else "u1"), (self.y, "<i8"), (self.index, "<i8")):
            array = np.ascontiguousarray(values, dtype=dtype)
            sha.update(np.array(array.shape, dtype="<i8").tobytes())
            sha.update(array.data)
        return sha.hexdigest()


def take(split: Split, positions: NDArray[np.int64]) -> Split:
    """The images at these positions of the split, in this order; they keep their index."""
    at = torch.from_numpy(positions)
    return replace(split, x=split.x[at], y=split.y[at], index=split.index[at])


def disjoint_part(split: Split, part: int, parts: int) -> Split:
    """Part 1, 2, ... of a split that is dealt out to so many parts by the images' index, image by image."""
    return take(split, np.flatnonzero(split.index.numpy() % parts == part - 1))


def balanced_subset(split: Split, examples: int, *, seed: int) -> Split:
    """A class-balanced subset in the split's order; under one seed, a smaller one is part of every larger one.

    Every class gives examples // classes images, and the first ones in a hashed order of the classes one more.
    A class that runs out is made up for by the others.

    Args:
        examples: how many images; the split itself is returned when it has no more than that.

    Raises:
        InputError: examples is below 1.
    """
    if examples < 1:
        raise InputError(f"examples must be at least 1, got {examples}; the {split.part} part has {len(split)}")
    if examples >= len(split):
        return split
    y = split.y.numpy()
    rank = _rank_in_class(split, seed=seed, stream=_SUBSET_STREAM)
    class_hash = _keyed_hash(np.arange(split.classes), seed=seed, stream=_CLASS_STREAM)
    # First of every class, second of every class, ...: any prefix of this order is balanced, hence nested.
    order = np.lexsort((class_hash[y], rank))
    return take(split, np.sort(order[:examples]))


def with_wider(part: Split, whole: Split, *, seed: int) -> Split:
    """A selection of up to `WIDER` images of the same whole beside a part that has fewer; else the part as it is."""
    if len(part) >= min(WIDER, len(whole)):
        return part
    return replace(part, wider=balanced_subset(whole, WIDER, seed=seed))


def holdout(split: Split, examples: int, *, seed: int) -> tuple[Split, Split]:
    """The split without a validation split, and that validation split of `examples` images, class-proportional.

    Raises:
        InputError: either of the two would be empty.
    """
    if not 1 <= examples < len(split):
        raise InputError(f"a holdout must leave images on both sides: expected 1 to {len(split) - 1}, got {examples}")
    y = split.y.numpy()
    quota = _largest_remainder(np.bincount(y, minlength=split.classes), examples)
    held = _rank_in_class(split, seed=seed, stream=_HOLDOUT_STREAM) < quota[y]
    return take(split, np.flatnonzero(~held)), take(split, np.flatnonzero(held))


def random_order(split: Split, *, seed: int) -> NDArray[np.int64]:
    """All positions of the split in a seeded random order, the same on every machine."""
    return np.argsort(_keyed_hash(split.index.numpy(), seed=seed, stream=_ORDER_STREAM), kind="stable")


def _rank_in_class(split: Split, *, seed: int, stream: int) -> NDArray[np.int64]:
    """For every image its place, from 0, among those of its class in hash order; int64 (N,)."""
    y = split.y.numpy()
    order = np.lexsort((_keyed_hash(split.index.numpy(), seed=seed, stream=stream), y))
    counts = np.bincount(y, minlength=split.classes)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(y), dtype=np.int64)
    rank[order] = np.arange(len(y)) - first[y[order]]
    return rank


def _largest_remainder(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole shares of `total` proportional to counts, which sum to it; of equal remainders the lower class wins."""
    shares, remainders = np.divmod(counts * total, counts.sum())
    shares[np.argsort(-remainders, kind="stable")[: total - shares.sum()]] += 1
    return shares


def _keyed_hash(values: NDArray[np.int64], *, seed: int, stream: int) -> NDArray[np.uint64]:
    """Distinct uint64 per value: output number `value` of splitmix64 started at a hash of (seed, stream).

    Not a library's generator: its stream may change with the version, and with it the images of a published number.
    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with the constants
        of Vigna's splitmix64.c.
    """
    key = _mix(np.array([(seed + stream * _GOLDEN) % 2**64], dtype=np.uint64))
    return _mix(key + values.astype(np.uint64) * np.uint64(_GOLDEN))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64, a bijection of uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
