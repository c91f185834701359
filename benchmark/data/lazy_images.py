"""Images that are decoded when they are needed, chunk by chunk, so that a dataset may be larger than memory."""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from attacks.errors import InputError

_BATCH = 64
"""Images that one worker decodes at a time."""
Checked = tuple[bytes, str]
"""sha256 of an image's pixels, and what is wrong with it: one of both is empty."""


class ImageSource(Protocol):
    """Where images come from: `source[i]` decodes one, uint8 (C, H, W), and raises InputError where it cannot."""

    def __getitem__(self, i: int) -> Tensor: ...


class LazyImages:
    """A selection of images, float32 (N, C, H, W) in [0, 1]: indexing selects, `to` and `split` decode.

    They stand where a sweep has a tensor, and answer as one to what it asks.

    Args:
        source: decodes an image.
        rows: (N,) which of its images these are.
        shape: (C, H, W).
        checksums: (N, 32) bytes, sha256 of the pixels of each.
    """

    def __init__(
        self, source: ImageSource, rows: NDArray[np.int64], shape: Sequence[int], checksums: NDArray[np.uint8]
    ) -> None:
        self.source = source
        self.rows = rows
        self.checksums = checksums
        self.shape = torch.Size((len(rows), *shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, selected: slice | Tensor | NDArray[np.int64]) -> "LazyImages":
        at = selected.cpu().numpy() if isinstance(selected, Tensor) else selected
        return LazyImages(self.source, self.rows[at], self.shape[1:], self.checksums[at])

    @property
    def nbytes(self) -> int:
        """What they take decoded: a chunk at a time is."""
        return 4 * self.shape.numel()

    def to(self, device: torch.device | str) -> Tensor:
        """The images themselves, on a device."""
        nothing = torch.empty((0, *self.shape[1:]), device=device)
        return torch.cat([nothing, *(part.to(device) for part in self.split(_BATCH))])

    def split(self, size: int) -> Iterator[Tensor]:
        """The images, so many at a time, on the CPU."""
        for batch in _loaded(_Decoded(self.source, self.rows), size):
            yield torch.stack(batch).float().div_(255)


@dataclass(frozen=True)
class _Decoded(Dataset[Tensor]):
    source: ImageSource
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Tensor:
        return self.source[int(self.rows[i])]


class _Summed(_Decoded):
    def __getitem__(self, i: int) -> Checked:  # type: ignore[override]
        try:
            pixels = super().__getitem__(i)
        except InputError as error:
            return b"", str(error)
        return hashlib.sha256(pixels.contiguous().numpy().tobytes()).digest(), ""


def _loaded(images: Dataset[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Batches, by a few processes where they are many images, and a process may have others."""
    many = len(images) > _BATCH and not multiprocessing.current_process().daemon  # type: ignore[arg-type]
    workers = len(os.sched_getaffinity(0)) if many and hasattr(os, "sched_getaffinity") else 0
    yield from DataLoader(images, size, num_workers=workers, collate_fn=list)


def summed(source: ImageSource, rows: NDArray[np.int64], *, quiet: bool) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Decode images once.

    Returns: (N, 32) bytes, sha256 of the pixels of each; and by row what is wrong with those that cannot be decoded.
    """
    sums, broken = np.zeros((len(rows), 32), dtype=np.uint8), dict[int, str]()
    with tqdm(total=len(rows), desc="images", unit="image", disable=quiet or len(rows) <= 10 * _BATCH) as progress:
        place = 0
        for batch in _loaded(_Summed(source, rows), _BATCH):
            for checksum, problem in batch:
                sums[place] = np.frombuffer(checksum or bytes(32), np.uint8)
                if problem:
                    broken[int(rows[place])] = problem
                place += 1
                progress.update()
    return sums, broken
