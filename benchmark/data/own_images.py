"""A user's own labelled images: class folders of image files, arrays in an .npz, or a dataset of the hub on disk."""

import re
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.errors import InputError, one_line
from attacks.input_checks import check_data
from benchmark.data.class_names import published_names, read_names, shortened
from benchmark.data.lazy_images import ImageSource, LazyImages, summed
from benchmark.data.pixels import SUFFIXES, Preparation, is_turned, preparation
from benchmark.data.split import Split, balanced_subset, with_wider
from model_zoo.crop import Crop

ON_DISK = ("state.json", "dataset_dict.json")
"""What `datasets` writes beside a dataset, and beside several parts of one."""
PARTS = ("test", "validation")
"""Of a dataset with several parts the one that is attacked, the first of these that is there."""
PART_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""What folders of parts of a dataset are called."""
LOOKED_AT = 200
"""How many pictures, evenly spread, are asked whether they are to be turned."""
ARRAYS = ".npz"
CROPS = {"imagenet": Crop(224, resize=256)}
"""By dataset, how its images are brought to one size where the user does not say: cut out, and resized before."""


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
            chosen = replace(wanted, x=self.source[wanted.index])
            return with_wider(chosen, replace(whole, x=self.source), seed=seed)
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


def own_images(
    path: Path,
    *,
    crop: Crop | None = None,
    channels: int | None = None,
    classes: Path | None = None,
    labels: Sequence[str] = (),
) -> OwnImages:
    """The images at a path, each with its class.

    Args:
        path: a folder FOLDER/<class>/*.png (.jpg, .jpeg, .webp, .bmp), an .npz with x and y, or a folder that
            `datasets.save_to_disk` wrote.
        crop: the square that is cut out of the middle of an image, and what it is resized to before; None where all
            images have one size.
        channels: 1 for grey levels, 3 for RGB; None for what the first image has.
        classes: a file that names the classes, one a line, in the order of the logits; None where the folders, sorted
            by name, are all of them.
        labels: what a published model's logits are called, in their order; taken for `classes` where folders are
            called by them and the user names none.

    Raises: InputError for what is no such folder or file, and for classes without images or images without a class.
    """
    names = None if classes is None else read_names(classes)
    if path.suffix == ARRAYS and path.is_file():
        if crop or channels:
            raise InputError(f"{path}: arrays are taken as they are; leave out --image-size and --channels")
        return _from_arrays(path, names)
    if not path.is_dir():
        found = "another file" if path.exists() else "none"
        raise InputError(f"--data: expected a folder or an .npz at {path}, found {found}; mend the path")
    if any((path / name).is_file() for name in ON_DISK):
        return _from_hub_folder(path, names, crop, channels, labels)
    return _from_class_folders(path, names, crop, channels, labels)


@dataclass(frozen=True)
class _Files:
    paths: Sequence[Path]
    prepared: Preparation

    def __getitem__(self, i: int) -> Tensor:
        return self.prepared.read(self.paths[i], str(self.paths[i]))


def _from_class_folders(
    path: Path, names: Sequence[str] | None, crop: Crop | None, channels: int | None, published: Sequence[str]
) -> OwnImages:
    folders = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    _refuse_parts(path, folders)
    names = names or published_names(path, "folder", folders, published)
    label_of = _labels(path, "folder", folders, names)
    files: list[Path] = []
    passed_over: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        there = sorted(p for p in (path / folder).rglob("*") if p.is_file() and not _is_hidden(p, path))
        found = [p for p in there if p.suffix.lower() in SUFFIXES]
        passed_over += [p for p in there if p.suffix.lower() not in SUFFIXES]
        if not found:
            raise InputError(f"{path / folder}: expected images of a class ({', '.join(SUFFIXES)}), got none; add some")
        files += found
        labels += [label_of[folder]] * len(found)
    _tell_of(files, passed_over, sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES))
    prepared = _first_preparation(files, crop, channels)
    below = [str(file.relative_to(path)) for file in files]
    source = _Files(files, prepared)
    return OwnImages(_name_of(path), source, np.array(labels), names or folders, prepared.shape, below)


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _refuse_parts(path: Path, folders: Sequence[str]) -> None:
    """Raise InputError for a folder of parts (train, val), whose class folders lie one level further down."""
    inner = [child for folder in folders for child in (path / folder).iterdir()]
    if folders and {name.lower() for name in folders} <= PART_NAMES and all(child.is_dir() for child in inner):
        raise InputError(
            f"{path}: expected a folder of class folders, got parts of a dataset ({', '.join(folders)}); name one of "
            f"them: --data {path / folders[-1]}"
        )


def _tell_of(files: Sequence[Path], passed_over: Sequence[Path], loose: Sequence[Path]) -> None:
    """Say which files are no images here, and whether some pictures would be shown turned."""
    for what, others in (("no pictures by their endings", passed_over), ("in no class folder", loose)):
        if others:
            print(f"note: passed over, {what}: {shortened([str(file) for file in others])}", file=sys.stderr)
    turned = next(filter(is_turned, files[:: -(-len(files) // LOOKED_AT)]), None)
    if turned is not None:
        print(
            f"note: pictures such as {turned} say that they are to be turned, and are taken as they lie in the file, "
            "as torchvision's ImageFolder takes them",
            file=sys.stderr,
        )


def _first_preparation(files: Sequence[Path], crop: Crop | None, channels: int | None) -> Preparation:
    """How images are brought to one shape, by the first that can be read. Raises: InputError for the first, if none."""
    problem: InputError | None = None
    for file in files:
        try:
            return preparation(file, str(file), crop=crop, channels=channels)
        except InputError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _labels(path: Path, kind: str, found: Sequence[str], names: Sequence[str] | None) -> Mapping[str, int]:
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


def _from_arrays(path: Path, names: Sequence[str] | None) -> OwnImages:
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
    return OwnImages(_name_of(path), images, labels, named, (channels, height, width))


@dataclass(frozen=True)
class _Rows:
    rows: Any
    column: str
    path: Path
    prepared: Preparation

    def __getitem__(self, i: int) -> Tensor:
        return self.prepared.read(_file_in(self.rows[i][self.column]), f"{self.path}, row {i}")


def _from_hub_folder(
    path: Path, names: Sequence[str] | None, crop: Crop | None, channels: int | None, published: Sequence[str]
) -> OwnImages:
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
    label_of = _labels(path, "class", own, names)
    given = np.array(rows[labels[0]])
    if (given < 0).any():
        raise InputError(f"{path}: expected a label for every row, got none for {(given < 0).sum()}; leave these out")
    y = np.array([label_of[name] if names else place for place, name in enumerate(own)])[given]
    rows = rows.cast_column(images[0], datasets.Image(decode=False))
    first = _file_in(rows[0][images[0]])
    prepared = preparation(first, f"{path}, row 0", crop=crop, channels=channels, turns=True)
    return OwnImages(_name_of(path), _Rows(rows, images[0], path, prepared), y, names or own, prepared.shape)


def _file_in(cell: Mapping[str, Any]) -> IO[bytes] | Path:
    """The file of an image as `datasets` keeps it: its bytes, or where it is."""
    return Path(cell["path"]) if cell["bytes"] is None else BytesIO(cell["bytes"])


def _name_of(path: Path) -> str:
    """That of a folder or file, as a suite may be called."""
    whole = path.resolve()
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", whole.name if path.is_dir() else whole.stem).strip("-.") or "images"
