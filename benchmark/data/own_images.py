"""A user's own labelled images, wherever they come from: an image is decoded when it is needed."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.errors import InputError
from benchmark.data.class_names import shortened
from benchmark.data.lazy_images import ImageSource, LazyImages, summed
from benchmark.data.split import Split, balanced_subset, with_wider


@dataclass(frozen=True)
class OwnImages:
    """Labelled images that a user brings along; nothing is decoded yet but the first.

    Args:
        name: of the dataset: that of its folder or file.
        source: decodes an image; or all of them, float32 (N, C, H, W) in [0, 1].
        labels: (N,) which logit is right for each.
        names: of the classes, in the order of the logits.
        shape: (C, H, W).
        files: where each image lies, below the folder that was given; empty where images are not files.
    """

    name: str
    source: ImageSource | Tensor
    labels: NDArray[np.int64]
    names: Sequence[str]
    shape: tuple[int, int, int]
    files: Sequence[str] = ()

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return len(self.names)

    def file_of(self, index: int) -> str:
        """Where an image lies, below the folder that was given; "" where it is no file."""
        return self.files[index] if self.files else ""

    def select(self, examples: int | None, *, seed: int, most_broken: int = 0, quiet: bool = False) -> Split:
        """All images, or a seeded balanced subset, each decoded once to see whether it can be.

        Args:
            examples: the size of the subset; None for all.
            most_broken: so many that cannot be read may be left out.

        Raises: InputError where more cannot be.
        """
        n = len(self.labels)
        labels, places = torch.from_numpy(self.labels), torch.arange(n)
        whole = Split(self.name, "test", torch.empty(n, 0), labels, places, self.classes, self.names)
        if examples is not None and examples > n:
            print(f"note: {self.name} has {n} images, not {examples}: all are taken", file=sys.stderr)
        wanted = whole if examples is None else balanced_subset(whole, examples, seed=seed)
        rows = wanted.index.numpy()
        if isinstance(self.source, Tensor):
            whole = replace(whole, x=self.source)
            chosen = replace(wanted, x=self.source[wanted.index], origin=whole.digest)
            return with_wider(chosen, whole, seed=seed)
        sums, broken = summed(self.source, rows, quiet=quiet)
        if len(broken) > most_broken:
            first = next(iter(broken.values()))
            more = len(broken) - 1
            others = f", and {more} other{'s' * (more > 1)}" if more else ""
            raise InputError(
                f"{first}{others}; or leave {len(broken)} of {n} images out by --skip-broken {len(broken)}"
            )
        for problem in broken.values():
            print(f"left out: {problem}", file=sys.stderr)
        kept = ~np.isin(rows, list(broken))
        at = torch.from_numpy(kept)
        if not kept.any():
            raise InputError(f"{self.name}: expected images that can be read, got none; replace them")
        x = LazyImages(self.source, rows[kept], self.shape, sums[kept])
        return replace(wanted, x=cast(Tensor, x), y=wanted.y[at], index=wanted.index[at])


def labels_by_name(path: Path, kind: str, found: Sequence[str], names: Sequence[str] | None) -> Mapping[str, int]:
    """The label of each class that was found: its place among all names, or among those found."""
    if len(found) < 2:
        raise InputError(
            f"{path}: expected a {kind} for each of two classes at least, got {len(found)}; a label is a {kind}'s name"
        )
    if names is None:
        numbers = [int(name) for name in found if name.isdecimal()]
        if len(numbers) == len(found) and numbers != sorted(numbers):
            raise InputError(
                f"{path}: expected {kind}s whose order is that of the logits, got numbers without leading zeros; name "
                "them in the order of the logits by --classes FILE, one a line"
            )
        return {name: label for label, name in enumerate(found)}
    unknown = [name for name in found if name not in names]
    if unknown:
        raise InputError(
            f"{path}: expected {kind}s named in --classes, got {unknown[0]!r}; rename it, or name it there "
            f"(names: {shortened(names)})"
        )
    return {name: names.index(name) for name in found}


def name_of(path: Path) -> str:
    """That of a folder or file, as a suite may be called."""
    whole = path.resolve()
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", whole.name if path.is_dir() else whole.stem).strip("-.") or "images"
