"""A user's own images as arrays x and y in an .npz."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from attacks.errors import InputError, one_line
from attacks.input_checks import check_data
from benchmark.data.own_images import OwnImages, name_of

ARRAYS = ".npz"


def from_arrays(path: Path, names: Sequence[str] | None) -> OwnImages:
    """x uint8 or float in [0, 1], (N, C, H, W), (N, H, W, C) or (N, H, W); y (N,) whole numbers."""
    try:
        with path.open("rb") as content:  # numpy leaves what it opens itself open where it is damaged
            file = np.load(content, allow_pickle=False)
            arrays = {name: np.asarray(file[name]) for name in ("x", "y")}
    except (OSError, LookupError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = one_line(error)[:160]
        raise InputError(f"{path}: expected arrays x and y in an .npz, could not read them ({reason})") from None
    x, y = arrays["x"], arrays["y"]
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.dtype == np.uint8 and x.size and x.max() == 1:
        raise InputError(f"{path}: expected x as uint8 up to 255, got none above 1; multiply it by 255")
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(255)
    elif not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"{path}: expected x as uint8, or floats in [0, 1], got {x.dtype}; convert it")
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{path}: expected y as whole numbers, got {y.dtype}; convert it")
    images, labels = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), y.astype(np.int64)
    try:
        check_data(images, torch.from_numpy(labels))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    classes = len(names) if names else int(labels.max()) + 1
    _, channels, height, width = images.shape
    if labels.min() < 0 or labels.max() >= classes or classes < 2:
        raise InputError(
            f"{path}: expected labels of two classes at least, from 0 to {max(classes, 2) - 1}, got "
            f"{labels.min()} to {labels.max()}; mend y, or --classes"
        )
    named = names or [str(label) for label in range(classes)]
    return OwnImages(name_of(path), images, labels, named, (channels, height, width))
