"""A user's own images as a dataset of the hub on disk, as `save_to_disk` of the package datasets writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from attacks.errors import InputError, one_line
from benchmark.data.class_names import published_names
from benchmark.data.own_images import OwnImages, labels_by_name, name_of
from benchmark.data.pixels import Preparation, preparation
from model_zoo.crop import Crop

ON_DISK = ("state.json", "dataset_dict.json")
"""What `datasets` writes beside a dataset, and beside several parts of one."""
PARTS = ("test", "validation")
"""Of a dataset with several parts the one that is attacked, the first of these that is there."""


@dataclass(frozen=True)
class _Rows:
    rows: Any
    column: str
    path: Path
    prepared: Preparation

    def __getitem__(self, i: int) -> Tensor:
        return self.prepared.read(_file_in(self.rows[i][self.column]), f"{self.path}, row {i}")


def from_hub_folder(
    path: Path, names: Sequence[str] | None, crop: Crop | None, channels: int | None, published: Sequence[str]
) -> OwnImages:
    """The images of a dataset on disk, or of the first part of it that is attacked; arguments as for class folders.

    Raises: InputError where the package is not installed, and for rows without one image and one label each.
    """
    try:
        import datasets  # an optional package
    except ImportError:
        raise InputError(
            f"{path}: a folder of the package datasets, which is not installed; run: pip install datasets"
        ) from None
    try:
        rows = datasets.load_from_disk(str(path))
    except Exception as error:  # it reads JSON and Arrow, and raises in their ways
        reason = one_line(error)[:160]
        raise InputError(f"{path}: expected a dataset of the package datasets, could not read it ({reason})") from None
    if isinstance(rows, datasets.DatasetDict):
        part = next((name for name in PARTS if name in rows), None)
        if part is None:
            raise InputError(
                f"{path}: expected a part called {' or '.join(PARTS)}, got {', '.join(rows)}; name the folder of one"
            )
        rows = rows[part]
    images = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1 or not len(rows):
        raise InputError(
            f"{path}: expected rows with one column of images and one of class labels, got {len(rows)} rows with "
            f"{', '.join(rows.features)}; cast the columns to datasets.Image and datasets.ClassLabel"
        )
    own = rows.features[labels[0]].names
    names = names or published_names(path, "class", own, published)
    label_of = labels_by_name(path, "class", own, names)
    given = np.array(rows[labels[0]])
    if (given < 0).any():
        raise InputError(f"{path}: expected a label for every row, got none for {(given < 0).sum()}; leave these out")
    y = np.array([label_of[name] if names else place for place, name in enumerate(own)])[given]
    rows = rows.cast_column(images[0], datasets.Image(decode=False))
    first = _file_in(rows[0][images[0]])
    prepared = preparation(first, f"{path}, row 0", crop=crop, channels=channels, turns=True)
    return OwnImages(name_of(path), _Rows(rows, images[0], path, prepared), y, names or own, prepared.shape)


def _file_in(cell: Mapping[str, Any]) -> IO[bytes] | Path:
    """The file of an image as `datasets` keeps it: its bytes, or where it is."""
    return Path(cell["path"]) if cell["bytes"] is None else BytesIO(cell["bytes"])
