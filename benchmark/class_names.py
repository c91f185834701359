"""The official classes of each data set, by which class folders get their labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attacks.errors import InputError

_NUMBERS = tuple(str(label) for label in range(10))

CLASS_NAMES: Mapping[str, Sequence[str]] = {
    "mnist": _NUMBERS,
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (*("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),),
    "cifar100": (
        *("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle"),
        *("bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle"),
        *("chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur"),
        *("dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard"),
        *("lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle"),
        *("mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear"),
        *("pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon"),
        *("ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail"),
        *("snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone"),
        *("television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree"),
        *("wolf", "woman", "worm"),
    ),
    "svhn": _NUMBERS,
}
"""In the order of the labels, as torchvision has them."""


def in_order(folders: Sequence[str], dataset: str, classes_file: Path | None, where: Path) -> list[str]:
    """The folder names in the order of the labels.

    Args:
        folders: as many names as the data set has classes.
        classes_file: the names, one a line, in the order of the labels; None for the official ones, of which capitals
            and all but letters and digits may differ, or for the labels themselves.
        where: the folder that they lie in, for errors.

    Raises: InputError for a name that is none of them, or for two of one class.
    """
    if classes_file is not None:
        expected = _listed(classes_file, len(folders))
        labels = {name: label for label, name in enumerate(expected)}
        found = {name: labels.get(name) for name in folders}
    else:
        expected = list(CLASS_NAMES[dataset])
        labels = {_plain(name): label for label, name in enumerate(expected)}
        found = {name: int(name) if name.isdecimal() else labels.get(_plain(name)) for name in folders}
    known = {label: name for name, label in sorted(found.items()) if label in range(len(folders))}
    if len(known) == len(folders):
        return [known[label] for label in range(len(folders))]
    stranger = next(name for name in sorted(folders) if name not in known.values())
    shown = ", ".join([*expected[:10], *(["..."] if len(expected) > 10 else [])])
    remedy = (
        f"correct {classes_file}, or rename the folders"
        if classes_file
        else "rename the folders, or name them in the order of the logits by --classes FILE"
    )
    raise InputError(f"{where}: expected the classes of {dataset} ({shown}), got folder {stranger!r}; {remedy}")


def _listed(file: Path, classes: int) -> list[str]:
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {file}: expected a text file, could not read it ({error})") from error
    if len(set(names)) != len(names) or len(names) != classes:
        raise InputError(
            f"--classes {file}: expected {classes} different names, one a line in the order of the logits, "
            f"got {len(names)} lines and {len(set(names))} names"
        )
    return names


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
