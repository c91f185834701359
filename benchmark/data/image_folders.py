"""A user's own images as class folders of image files: FOLDER/<class>/*.png and the like."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from attacks.errors import InputError
from benchmark.data.class_names import published_names, shortened
from benchmark.data.own_images import OwnImages, labels_by_name, name_of
from benchmark.data.pixels import SUFFIXES, Preparation, is_turned, preparation
from model_zoo.crop import Crop

PART_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""What folders of parts of a dataset are called."""
LOOKED_AT = 200
"""How many pictures, evenly spread, are asked whether they are to be turned."""


@dataclass(frozen=True)
class _Files:
    paths: Sequence[Path]
    prepared: Preparation

    def __getitem__(self, i: int) -> Tensor:
        return self.prepared.read(self.paths[i], str(self.paths[i]))


def from_class_folders(
    path: Path, names: Sequence[str] | None, crop: Crop | None, channels: int | None, published: Sequence[str]
) -> OwnImages:
    """The images of a folder of class folders.

    Args:
        names: of all classes, in the order of the logits; None for those of the folders, or the published ones.
        crop, channels: as for `own_images`.
        published: what a published model's logits are called.

    Raises: InputError for classes without images, images without a class, and parts of a dataset.
    """
    folders = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    _refuse_parts(path, folders)
    names = names or published_names(path, "folder", folders, published)
    label_of = labels_by_name(path, "folder", folders, names)
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
    return OwnImages(name_of(path), source, np.array(labels), names or folders, prepared.shape, below)


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
