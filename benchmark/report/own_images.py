"""A user's own images beside the tables: which file an index means, and what the classes are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmark.data.class_names import CLASS_NAMES
from benchmark.data.own_images import OwnImages
from benchmark.data.split import Split
from model_zoo.files.atomic import atomic_write

IMAGES, CLASSES = "images.csv", "classes.txt"


def write_own_images(folder: Path, brought: OwnImages | None, split: Split) -> None:
    """Write what the indices and labels of a suite's tables mean; remove it where its images are a dataset's own.

    Args:
        folder: of the tables. split: the images that were attacked.
    """
    if brought is None:
        for name in (IMAGES, CLASSES):
            (folder / name).unlink(missing_ok=True)
        return
    index, labels = split.index.tolist(), split.y.tolist()
    rows = {
        "index": index,
        "file": [brought.file_of(i) for i in index],
        "label": labels,
        "class": [brought.names[label] for label in labels],
    }
    atomic_write(folder / IMAGES, pd.DataFrame(rows).to_csv(index=False).encode())
    atomic_write(folder / CLASSES, "".join(f"{name}\n" for name in brought.names).encode())


def class_names(folder: Path, dataset: str) -> Sequence[str]:
    """What the classes of a suite's tables are called, in the order of the labels.

    Returns: of own images the names in the folder of the tables, else the dataset's; none where these are the labels.
    """
    own = folder / CLASSES
    names = own.read_text(encoding="utf-8").splitlines() if own.is_file() else CLASS_NAMES.get(dataset, ())
    return () if all(name == str(label) for label, name in enumerate(names)) else names


def file_names(folder: Path) -> Mapping[int, str]:
    """By index, the files of own images; nothing where the images are a dataset's own."""
    path = folder / IMAGES
    if not path.is_file():
        return {}
    table = pd.read_csv(path, dtype={"file": str}, keep_default_na=False)
    return {int(index): name for index, name in zip(table["index"], table["file"], strict=True) if name}
