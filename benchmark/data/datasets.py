"""The datasets, and the one way to their images: class folders, else torchvision's files, else its download."""

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from attacks.errors import InputError, one_line
from attacks.names import by_name, lookup
from benchmark.data.class_names import class_folders
from benchmark.data.split import Split, holdout

PARTS = ("train", "test")
_DIGITS_SEED = 0
_DIGITS_TEST_EXAMPLES = 500
_PROGRESS_FROM = 5_000
_NETWORK_TIMEOUT_S = 20.0

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, C, H, W), labels (N,)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset by its official figures.

    Attributes:
        shape: (C, H, W).
        source: the class of torchvision.datasets that downloads it, or scikit-learn, which brings it along.
        files: where torchvision keeps its files under the data directory.
        read: (spec, part, data_dir) to the part's images and labels, None where its files are not there;
            None for digits, which are no files of ours.
    """

    name: str
    _: KW_ONLY
    classes: int
    shape: tuple[int, int, int]
    train_examples: int
    test_examples: int
    source: str
    files: str = ""
    read: "Callable[[DatasetSpec, str, Path], Arrays | None] | None" = None


def load(
    dataset: str,
    part: str,
    *,
    data_dir: Path,
    mirror: Path | None = None,
    classes: Path | None = None,
    quiet: bool = False,
) -> Split:
    """A whole part of a dataset.

    Class folders DATA/<dataset>/<part>/<class>/*.png come first; they may hold fewer images than the official part.
    Labels follow the folders' names (`class_folders`), indices the labels, then the file names.

    Args:
        part: "train" or "test".
        data_dir: DATA; need not exist. Written to only by a download.
        mirror: a folder with the official archives, which are taken from there in place of a download.
        classes: a file that names the class folders, in the order of the labels; None for the official names.
        quiet: no progress bar while files are read; a download shows torchvision's in any case.

    Raises:
        InputError: unknown dataset, part or class, damaged files, or no images there and none to be had.
    """
    spec = lookup(dataset, DATASETS, "dataset")
    if part not in PARTS:
        raise InputError(f"the part of a dataset is 'train' or 'test', got {part!r}")
    folder = data_dir / dataset / part
    if classes is not None and (spec.read is None or not folder.is_dir()):
        raise InputError(f"--classes names class folders, and {folder} has none; leave it out, or put them there")
    if spec.read is None:
        return _load_digits(part)
    if folder.is_dir():
        arrays = _read_class_folders(spec, folder, classes, quiet=quiet)
    else:
        arrays = spec.read(spec, part, data_dir) or _download(spec, part, data_dir, mirror)
    images, labels = arrays
    x = torch.from_numpy(images).to(torch.float32).div_(255)
    return Split(dataset, part, x, torch.from_numpy(labels), torch.arange(len(x)), spec.classes)


def _load_digits(part: str) -> Split:
    """scikit-learn's bundled digits, 16 grey levels; the division into parts is ours, by the hash of `holdout`."""
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).to(torch.float32).div_(16).unsqueeze(1)
    y = torch.from_numpy(bunch.target).to(torch.int64)
    whole = Split("digits", part, x, y, torch.arange(len(x)), classes=10)
    train, test = holdout(whole, _DIGITS_TEST_EXAMPLES, seed=_DIGITS_SEED)
    split = train if part == "train" else test
    return Split("digits", part, split.x, split.y, torch.arange(len(split)), classes=10)


def _read_class_folders(spec: DatasetSpec, folder: Path, classes: Path | None, *, quiet: bool) -> Arrays:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_folders(folder, spec.name, classes)):
        found = sorted(p for p in (folder / name).glob("*.png") if not p.name.startswith("."))
        if not found:
            raise InputError(f"{folder / name}: expected PNG images of a class of {spec.name}, got none; add them")
        files += found
        labels += [label] * len(found)
    images = np.empty((len(files), *spec.shape), dtype=np.uint8)
    progress = tqdm(files, desc=str(folder), unit="image", disable=quiet or len(files) <= _PROGRESS_FROM)
    for i, file in enumerate(progress):
        images[i] = _read_png(spec, file)
    return images, np.array(labels, dtype=np.int64)


def _read_png(spec: DatasetSpec, file: Path) -> NDArray[np.uint8]:
    """One image as uint8 (C, H, W)."""
    channels, height, width = spec.shape
    try:
        with Image.open(file) as image:
            size, depth = image.size, image.mode
            if size != (width, height):  # before it is unpacked: a small file may hold a huge image
                raise InputError(f"{file}: expected {width}x{height} pixels for {spec.name}, got {size[0]}x{size[1]}")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL's ways with a damaged PNG
        raise InputError(
            f"{file}: expected a PNG image, could not read it ({one_line(error)[:200]}); replace it"
        ) from error
    if depth.startswith(("I", "F")):
        raise InputError(f"{file}: expected 8 bits per channel, got PIL mode {depth}; convert it")
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _read_idx(spec: DatasetSpec, part: str, data_dir: Path) -> Arrays | None:
    """The files of MNIST and Fashion-MNIST; torchvision's own reader wants both parts even for one."""
    stem = "train" if part == "train" else "t10k"
    raw = data_dir / spec.files
    image_file, label_file = raw / f"{stem}-images-idx3-ubyte", raw / f"{stem}-labels-idx1-ubyte"
    if not (image_file.is_file() and label_file.is_file()):
        return None
    labels = _parse_idx(label_file, ())
    images = _parse_idx(image_file, spec.shape[1:])
    if len(images) != len(labels) or not len(labels) or labels.max() >= spec.classes:
        raise InputError(
            f"{raw}: expected one label below {spec.classes} per image, got other {stem} files; replace them"
        )
    return images[:, None], labels.astype(np.int64)


def _parse_idx(file: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """uint8 (N, *item) from an idx file: magic 00 00 08 ndim, the sizes as big-endian uint32, then the bytes."""
    content = file.read_bytes()
    start = 4 * (2 + len(item))
    if content[:4] == bytes((0, 0, 8, 1 + len(item))) and len(content) >= start:
        shape = tuple(int(n) for n in np.frombuffer(content, ">u4", 1 + len(item), offset=4))
        if shape[1:] == item and len(content) == start + np.prod(shape):
            return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)
    raise InputError(f"{file}: expected an idx file of {item or 'labels'}, got other or truncated content; replace it")


def _read_cifar(spec: DatasetSpec, part: str, data_dir: Path) -> Arrays | None:
    try:
        data = _torchvision(spec, part, data_dir, download=False)
    except (RuntimeError, OSError):  # its "not found or corrupted": it compares the md5 before it unpickles
        return None
    return np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.array(data.targets, dtype=np.int64)


def _read_svhn(spec: DatasetSpec, part: str, data_dir: Path) -> Arrays | None:
    try:
        data = _torchvision(spec, part, data_dir, download=False)
    except (RuntimeError, OSError):
        return None
    return np.ascontiguousarray(data.data), data.labels


def _torchvision(spec: DatasetSpec, part: str, root: Path, *, download: bool) -> Any:
    """torchvision's dataset object, which has no types."""
    import torchvision  # slow to import

    which = {"split": part} if spec.source == "SVHN" else {"train": part == "train"}
    return getattr(torchvision.datasets, spec.source)(root, download=download, **which)


def _copy_mirrored(spec: DatasetSpec, part: str, mirror: Path, staging: Path) -> None:
    """Put the official archives where torchvision looks for what it has; it compares their md5 and asks no network."""
    import torchvision  # slow to import

    source = getattr(torchvision.datasets, spec.source)
    if spec.source == "SVHN":
        names = [source.split_list[part][1]]
    else:
        names = [name for name, _ in source.resources] if hasattr(source, "resources") else [source.filename]
    for name in (name for name in names if (mirror / name).is_file()):
        target = staging / (spec.files if hasattr(source, "resources") else "") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mirror / name, target)


def _download(spec: DatasetSpec, part: str, data_dir: Path, mirror: Path | None) -> Arrays:
    """Let torchvision download into a folder of its own, and move the files into data_dir when they are all there."""
    assert spec.read is not None
    try:
        with _staging(data_dir) as staging, _network_timeout():
            if mirror is not None:
                _copy_mirrored(spec, part, mirror, staging)
            _torchvision(spec, part, staging, download=True)
            for file in [p for p in staging.rglob("*") if p.is_file()]:
                target = data_dir / file.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
    except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError
        split = f"split='{part}', " if spec.source == "SVHN" else ""
        raise InputError(
            f"no {part} images of {spec.name}: neither class folders {data_dir / spec.name / part}/<class>/*.png nor "
            f"{data_dir / spec.files.format(part=part)} is there, and the download failed ({one_line(error)[:200]}); "
            f"put one of them there, point --data-dir at a folder that has it, or run this where there is a network: "
            f"python -c \"from torchvision.datasets import {spec.source} as D; D('{data_dir}', {split}download=True)\""
        ) from error
    arrays = spec.read(spec, part, data_dir)
    assert arrays is not None, "torchvision downloads what it reads"
    return arrays


@contextmanager
def _staging(data_dir: Path) -> Iterator[Path]:
    """A temporary folder inside data_dir, which is created for it, and removed again if that leaves it empty."""
    created = [p for p in (data_dir, *data_dir.parents) if not p.exists()]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
            yield Path(folder)
    finally:
        for path in created:
            with suppress(OSError):  # not empty: the download is in it
                path.rmdir()


@contextmanager
def _network_timeout() -> Iterator[None]:
    """torchvision sets none, and would wait minutes for a network that swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_TABLE = (
    DatasetSpec("digits", classes=10, shape=(1, 8, 8), train_examples=1_297, test_examples=500, source="scikit-learn"),
    DatasetSpec(
        "mnist",
        classes=10,
        shape=(1, 28, 28),
        train_examples=60_000,
        test_examples=10_000,
        source="MNIST",
        files="MNIST/raw",
        read=_read_idx,
    ),
    DatasetSpec(
        "fashion-mnist",
        classes=10,
        shape=(1, 28, 28),
        train_examples=60_000,
        test_examples=10_000,
        source="FashionMNIST",
        files="FashionMNIST/raw",
        read=_read_idx,
    ),
    DatasetSpec(
        "cifar10",
        classes=10,
        shape=(3, 32, 32),
        train_examples=50_000,
        test_examples=10_000,
        source="CIFAR10",
        files="cifar-10-batches-py",
        read=_read_cifar,
    ),
    DatasetSpec(
        "cifar100",
        classes=100,
        shape=(3, 32, 32),
        train_examples=50_000,
        test_examples=10_000,
        source="CIFAR100",
        files="cifar-100-python",
        read=_read_cifar,
    ),
    DatasetSpec(
        "svhn",
        classes=10,
        shape=(3, 32, 32),
        train_examples=73_257,
        test_examples=26_032,
        source="SVHN",
        files="{part}_32x32.mat",
        read=_read_svhn,
    ),
)
DATASETS = by_name(_TABLE, "dataset")
