"""From a path to a user's own images: class folders, arrays in an .npz, or a dataset of the hub on disk."""

from collections.abc import Sequence
from pathlib import Path

from attacks.errors import InputError
from benchmark.data.class_names import read_names
from benchmark.data.hub_images import ON_DISK, from_hub_folder
from benchmark.data.image_arrays import ARRAYS, from_arrays
from benchmark.data.image_folders import from_class_folders
from benchmark.data.own_images import OwnImages
from model_zoo.crop import Crop

CROPS = {"imagenet": Crop(224, resize=256)}
"""By dataset, how its images are brought to one size where the user does not say: cut out, and resized before."""


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
        return from_arrays(path, names)
    if not path.is_dir():
        found = "another file" if path.exists() else "none"
        raise InputError(f"--data: expected a folder or an .npz at {path}, found {found}; mend the path")
    if any((path / name).is_file() for name in ON_DISK):
        return from_hub_folder(path, names, crop, channels, labels)
    return from_class_folders(path, names, crop, channels, labels)
