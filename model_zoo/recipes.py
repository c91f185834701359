"""How long, how fast and on which network: the settings that a defense is trained by, per dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from attacks.errors import InputError

AUGMENTATIONS = ("none", "crop-flip")


@dataclass(frozen=True)
class Recipe:
    """Everything about a training run but the loss.

    Args:
        architecture: a name of the architecture table.
        epochs, batch_size: as they say.
        optimizer: "sgd" (momentum 0.9) or "adam".
        lr: learning rate of the first epoch.
        milestones: (epoch, lr) pairs, from that epoch on, counted from 1.
        weight_decay: L2, on all parameters.
        inner_steps, inner_rel_step_size: of the attack inside the loss.
        epsilon: trained against, in pixel scale; None for the suite's own.
        augmentation: "none" or "crop-flip" (zero padding of an eighth of the side, horizontal flip).
        validation: how many training images are held out to choose the best epoch.
        train_examples: a class-balanced subset of the training images; None for all.

    Raises: InputError for a setting that no training can have.
    """

    architecture: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    milestones: Sequence[tuple[int, float]] = ()
    weight_decay: float = 0.0
    inner_steps: int = 10
    inner_rel_step_size: float = 0.25
    epsilon: float | None = None
    augmentation: str = "none"
    validation: int = 1000
    train_examples: int | None = None

    def __post_init__(self) -> None:
        smallest = {"epochs": 1, "batch_size": 1, "inner_steps": 0, "lr": 0.0, "weight_decay": 0.0}
        for name, least in {**smallest, "inner_rel_step_size": 0.0}.items():
            if not least <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.augmentation not in AUGMENTATIONS:
            raise InputError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {self.augmentation!r}")

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return ([self.lr] + [lr for start, lr in self.milestones if epoch >= start])[-1]


DIGITS = Recipe(
    "digits-cnn",
    60,
    64,
    "adam",
    1e-3,
    milestones=[(45, 1e-4)],
    inner_steps=10,
    inner_rel_step_size=0.25,
    validation=200,
)
IBP_DIGITS = replace(DIGITS, epochs=240, milestones=[(200, 1e-4)])  # cheap epochs, and a box is learnt slowly
CONVEX_DIGITS = replace(DIGITS, epochs=40, milestones=[(30, 1e-4)])  # an epoch takes ten times one of PGD training
TRADES_MNIST = Recipe(
    "small-cnn",
    100,
    128,
    "sgd",
    0.01,
    milestones=[(55, 1e-3), (75, 1e-4), (90, 1e-5)],
    inner_steps=40,
    inner_rel_step_size=0.01 / 0.3,
)
FAST_MNIST = Recipe(
    "strided-cnn", 15, 128, "adam", 1e-3, milestones=[(11, 1e-4)], inner_steps=20, inner_rel_step_size=0.1
)
TRADES_CIFAR = Recipe(
    "wrn-34-10",
    76,
    128,
    "sgd",
    0.1,
    milestones=[(75, 0.01)],
    weight_decay=2e-4,
    inner_steps=10,
    inner_rel_step_size=0.007 / 0.031,
    epsilon=0.031,
    augmentation="crop-flip",
)
FAST_IBP_MNIST = replace(FAST_MNIST, epochs=60, milestones=[(41, 1e-4), (53, 1e-5)])
FAST_CONVEX_MNIST = replace(  # small batches stay in the cache; use random projections (--set projections=50), too
    FAST_MNIST, epochs=20, batch_size=16, milestones=[(11, 5e-4), (16, 1e-4)], train_examples=10_000
)
IBP_MNIST = Recipe(  # 60,001 steps, lr 1e-4 from step 15,000 and 1e-5 from step 25,000, on the authors' second network
    "strided-cnn", 204, 200, "adam", 1e-3, milestones=[(52, 1e-4), (86, 1e-5)], inner_steps=20, epsilon=0.33
)
CONVEX_MNIST = Recipe(
    "strided-cnn", 60, 50, "adam", 1e-3, milestones=[(21, 5e-4), (31, 2.5e-4), (41, 1.25e-4), (51, 6.25e-5)]
)
SMOOTHING_CIFAR = Recipe(  # the authors' network is ResNet-110
    "resnet-18",
    90,
    256,
    "sgd",
    0.1,
    milestones=[(31, 0.01), (61, 0.001)],
    weight_decay=1e-4,
    augmentation="crop-flip",
)
FAST_CIFAR = Recipe(
    "resnet-18",
    30,
    128,
    "sgd",
    0.1,
    milestones=[(20, 0.01), (26, 0.001)],
    weight_decay=5e-4,
    inner_steps=10,
    inner_rel_step_size=0.25,
    augmentation="crop-flip",
)

RECIPES: Mapping[tuple[str, str, str], Recipe] = {
    ("*", "digits", "fast"): DIGITS,
    ("ibp", "digits", "fast"): IBP_DIGITS,
    ("convex-bound", "digits", "fast"): CONVEX_DIGITS,
    ("*", "mnist", "fast"): FAST_MNIST,
    ("ibp", "mnist", "fast"): FAST_IBP_MNIST,
    ("ibp", "mnist", "paper"): IBP_MNIST,
    ("convex-bound", "mnist", "fast"): FAST_CONVEX_MNIST,
    ("convex-bound", "mnist", "paper"): CONVEX_MNIST,
    ("natural", "mnist", "paper"): TRADES_MNIST,
    ("trades", "mnist", "paper"): TRADES_MNIST,
    ("*", "fashion-mnist", "fast"): FAST_MNIST,
    ("*", "cifar10", "fast"): FAST_CIFAR,
    ("natural", "cifar10", "paper"): TRADES_CIFAR,
    ("trades", "cifar10", "paper"): TRADES_CIFAR,
    ("smoothing", "cifar10", "paper"): SMOOTHING_CIFAR,
    ("*", "cifar100", "fast"): FAST_CIFAR,
    ("*", "svhn", "fast"): FAST_CIFAR,
}
"""(defense, dataset, recipe) to settings; "*" stands for every defense that has no line of its own."""


def recipe(defense: str, dataset: str, name: str) -> Recipe:
    """The settings of a defense on a dataset. Raises: InputError where there are none."""
    found = RECIPES.get((defense, dataset, name)) or RECIPES.get(("*", dataset, name))
    if found is None:
        known = sorted({kind for who, data, kind in RECIPES if data == dataset and who in ("*", defense)})
        raise InputError(f"no recipe {name!r} for {defense} on {dataset}; known: {', '.join(known) or 'none'}")
    return found


def with_overrides(chosen: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with some fields replaced by values given as text. Raises: InputError for a value of another type."""
    parsed: dict[str, Any] = {}
    types = {f.name: f.type for f in fields(chosen)}
    for name, text in overrides.items():
        declared = types[name]
        kind = declared.__name__ if isinstance(declared, type) else str(declared)
        try:
            parsed[name] = text if kind == "str" else float(text) if "float" in kind else int(text)
        except ValueError:
            raise InputError(f"--set {name} must be {kind}, got {text!r}") from None
    return replace(chosen, **parsed)
