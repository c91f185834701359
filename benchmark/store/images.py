"""Adversarial images beside the verdicts, so that anyone can judge them again in one forward pass.

runs/cases/KEY/START-STOP.SHA256.npz    index, y, x and x_adv of a chunk's images, in float32 as they were judged

x_adv is the first point that broke the image, else the last that was judged; the image itself where it is
misclassified when clean. Compressed without loss: nothing is rounded to 8 bits, which could undo an attack.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data.split import Split
from benchmark.store.chunk import Range, checksum, stem, whole_content

NAME = re.compile(r"(\d{6,})-(\d{6,})\.([0-9a-f]{32})\.npz")
UNREADABLE = (ValueError, KeyError, OSError, EOFError, MemoryError, RuntimeError, zlib.error, zipfile.BadZipFile)
"""What reading a broken archive may raise; RuntimeError for an encrypted one, or an unknown kind of compression."""

LARGEST = 16 * 2**30
"""Bytes that a file may unpack to."""


def pack_images(chunk: Range, images: Split, x_adv: Tensor) -> tuple[str, bytes]:
    """The name and the content of the file for a chunk; the same images give the same bytes."""
    buffer = io.BytesIO()
    arrays = {"index": images.index, "y": images.y, "x": images.x.cpu(), "x_adv": x_adv.cpu()}
    np.savez_compressed(buffer, allow_pickle=False, **{name: tensor.numpy() for name, tensor in arrays.items()})
    content = buffer.getvalue()
    return f"{stem(chunk)}.{checksum(content)}.npz", content


def unpack_images(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file. Raises: ValueError, in one line, for a damaged one or another kind."""
    content = whole_content(path)
    if content is None:
        raise ValueError("damaged: its content is not what its name says")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError("it would unpack to more than fits")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("index", "y", "x", "x_adv")}
    except UNREADABLE as error:
        raise ValueError(f"no kept images ({type(error).__name__})") from None
    shapes = {array.shape[:1] for array in arrays.values()}
    if len(shapes) != 1 or arrays["x"].shape != arrays["x_adv"].shape or arrays["x"].ndim != 4:
        raise ValueError("images of several shapes")
    if arrays["x"].dtype != np.float32 or arrays["x_adv"].dtype != np.float32:
        raise ValueError("images that are not float32")
    return arrays


def image_files(folder: Path) -> Iterator[tuple[Range, Path]]:
    """The files of kept images in a case's folder, by their names."""
    for path in sorted(folder.glob("*.npz")):
        if match := NAME.fullmatch(path.name):
            yield (int(match[1]), int(match[2])), path
