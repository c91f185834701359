"""Which images a model withstood once and no longer withstands."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmark.data.class_names import class_name
from benchmark.data.split import Split
from benchmark.gate.words import counted
from benchmark.stats.shares import Bools

FEW = 10
"""How many classes, and how many images, are named."""


def fallen_images(split: Split, order: NDArray[np.int64], before: Bools, now: Bools) -> str:
    """How many images fell and rose, of which classes those are that fell, and where they stand in the dataset.

    Args:
        order: (seen,) positions in the split. before, now: (seen,) bool, robust.
    """
    fell = order[before & ~now]
    labels, counts = np.unique(split.y.numpy()[fell], return_counts=True)
    by_class = np.argsort(-counts, kind="stable")
    classes = [f"{_name(split, int(labels[at]))} ({counts[at]})" for at in by_class]
    images = [str(index) for index in np.sort(split.index.numpy()[fell])]
    return (
        f"{counted(len(fell), 'image')} fell, {int((~before & now).sum())} rose; by class: {_first(classes)}; "
        f"images {_first(images)} of the {split.part} part"
    )


def _name(split: Split, label: int) -> str:
    name = split.names[label] if split.names else class_name(split.dataset, label)
    return name if name == str(label) else f"{label} {name}"


def _first(words: Sequence[str]) -> str:
    more = len(words) - FEW
    return ", ".join(words[:FEW]) + (f" and {counted(more, 'other')}" if more > 0 else "")
