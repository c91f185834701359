"""The names of the classes, in the order of the labels: what class folders may be called."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attacks.errors import InputError

_NUMBERS = tuple("0123456789")
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES: Mapping[str, Sequence[str]] = {
    "mnist": _NUMBERS,
    "fashion-mnist": (
        *("T-shirt_top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": tuple(_CIFAR100.split()),
    "svhn": _NUMBERS,
}
"""By dataset, as its authors call them; of Fashion-MNIST's "T-shirt/top" a folder cannot have the stroke."""


def class_name(dataset: str, label: int) -> str:
    """What the dataset's authors call a class; the label itself where they have no name for it."""
    names = CLASS_NAMES.get(dataset, ())
    return names[label] if label < len(names) else str(label)


def class_folders(folder: Path, dataset: str, classes: Path | None) -> list[str]:
    """The names of the class folders in a folder, in the order of the labels.

    They are the dataset's own, in any order, or the labels themselves (0, 1, ...), unless a file says otherwise.

    Args:
        dataset: a key of `CLASS_NAMES`.
        classes: a file with the name of each class on a line of its own, in the order of the logits.

    Raises: InputError for another number of folders, or for one whose label is not known.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    official = CLASS_NAMES[dataset]
    if len(found) != len(official):
        raise InputError(
            f"{folder}: expected {len(official)} class folders for {dataset}, got {len(found)}; add or remove some, or "
            "give images of your own classes by --data"
        )
    if classes is None and all(name.isdecimal() for name in found):
        numbered = sorted(found, key=int)
        if [int(name) for name in numbered] == list(range(len(official))):
            return numbered
    expected = official if classes is None else _names_for(classes, dataset)
    unknown = [name for name in found if name not in expected]
    if unknown:
        known = f"the names in {classes}" if classes else f"the names of {dataset} or labels 0 to {len(official) - 1}"
        remedy = "name it there" if classes else "give --classes FILE: one a line, in the order of the logits"
        raise InputError(
            f"{folder}: expected class folders with {known}, got {unknown[0]!r}; rename it, or {remedy} "
            f"(names: {shortened(expected)})"
        )
    return list(expected)


def read_names(path: Path) -> list[str]:
    """The names in a file, one a line. Raises: InputError for a file that cannot be read, or names one twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--classes {path}: expected names, one a line, could not read them ({error}); mend it"
        ) from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(set(names)) != len(names) or len(names) < 2:
        raise InputError(
            f"--classes {path}: expected different names, one a line, two at least, got {len(names)} lines with "
            f"{len(set(names))} names; write each class once"
        )
    return names


def published_names(path: Path, kind: str, found: Sequence[str], labels: Sequence[str]) -> Sequence[str] | None:
    """What all logits of a published model are called, where images' classes are called so, which is said; else None.

    Args:
        path: of the images; kind: what names their classes, "folder" or "class"; found: the names.
        labels: what the logits are called, in their order.

    Raises: InputError where some of the classes are called so and others are not, or two logits are called alike.
    """
    known = [name for name in found if name in labels]
    if not known:
        return None
    remedy = "name all classes in the order of the logits by --classes FILE, one a line"
    unknown = [name for name in found if name not in labels]
    if unknown:
        raise InputError(
            f"{path}: expected {kind} names that are labels of the model, or none that is, got {known[0]!r}, which is "
            f"one, and {unknown[0]!r}, which is none; {remedy}"
        )
    twice = [name for name in found if labels.count(name) > 1]
    if twice:
        raise InputError(
            f"{path}: expected {kind} names that are each the label of one logit, got {twice[0]!r}, which is that of "
            f"{labels.count(twice[0])}; {remedy}"
        )
    part = f"{len(found)} of the model's {len(labels)} labels" if len(found) < len(labels) else "the model's labels"
    print(f"note: {path}: the classes are {part}, in its order: {shortened(labels)}", file=sys.stderr)
    return labels


def _names_for(path: Path, dataset: str) -> list[str]:
    """The names in a file. Raises: InputError unless each class of the dataset has one of its own."""
    names, wanted = read_names(path), len(CLASS_NAMES[dataset])
    if len(names) != wanted:
        raise InputError(
            f"--classes {path}: expected {wanted} names for {dataset}, one a line, got {len(names)}; write each once"
        )
    return names


def shortened(names: Sequence[str]) -> str:
    """The first dozen names."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
