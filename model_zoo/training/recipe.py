"""What a training is set by, apart from its loss: how long, how fast, on which network, against what."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from attacks.errors import InputError
from attacks.number import parse_number

AUGMENTATIONS = ("none", "crop-flip")
SCHEDULES = ("milestones", "cosine", "cyclic")
MEMORY_FORMATS = ("contiguous", "channels-last")
PATHS = ("source", "pool")


@dataclass(frozen=True)
class Recipe:
    """Everything about a training run but the loss.

    Args:
        architecture: a name of the architecture table.
        epochs, batch_size: as they say.
        optimizer: "sgd" (momentum 0.9), "sgd-nesterov" (the same with Nesterov's momentum) or "adam".
        lr: learning rate of the first epoch; of a cyclic schedule the highest one.
        milestones: (epoch, lr) pairs, from that epoch on, counted from 1.
        weight_decay: L2, on all parameters.
        inner_steps, inner_rel_step_size: of the attack inside the loss.
        epsilon: trained against, in pixel scale; None for the suite's own.
        augmentation: "none" or "crop-flip" (zero padding of an eighth of the side, horizontal flip).
        validation: how many training images are held out to choose the best epoch.
        train_examples: a class-balanced subset of the training images; None for all.
        schedule: of the learning rate: "milestones", or batch by batch "cosine" (from lr to 0) or "cyclic" (from 0 to
            lr, and back to 0).
        peak: of a cyclic schedule: the share of the training after which lr is reached.
        param_schedule: (name, share, value): a parameter of the loss once that share of the epochs has passed.
        replays: how many optimizer steps each batch is used for.
        withheld: for a defense with a first stage: the fraction of the training images, class by class, that is kept
            from it, or has its labels taken away.
        warm_up: over how many epochs the epsilon trained against grows to its full size, from nothing; without it a
            large one can stop a network from learning anything.
        memory_format: of the network's weights: "contiguous", or "channels-last", by which convolutions in
            bfloat16 are faster; sums are rounded in another order.
        source_epochs: of the first stage; None for those of its own recipe.
        source: a checkpoint that stands in for the first stage.
        pool: unlabelled images that stand in for those withheld: a folder of PNG images or a .npy file.

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
    schedule: str = "milestones"
    peak: float = 0.5
    param_schedule: Sequence[tuple[str, float, float]] = ()
    replays: int = 1
    withheld: float = 0.5
    warm_up: float = 0.0
    memory_format: str = "contiguous"
    source_epochs: int | None = None
    source: str = ""
    pool: str = ""

    def __post_init__(self) -> None:
        smallest = {"epochs": 1, "batch_size": 1, "replays": 1, "inner_steps": 0, "lr": 0.0, "weight_decay": 0.0}
        for name, least in {**smallest, "inner_rel_step_size": 0.0, "warm_up": 0.0}.items():
            if not least <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("source_epochs", "train_examples"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.augmentation not in AUGMENTATIONS:
            raise InputError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {self.augmentation!r}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.memory_format not in MEMORY_FORMATS:
            raise InputError(f"memory_format must be one of {', '.join(MEMORY_FORMATS)}, got {self.memory_format!r}")
        for name in ("withheld", "peak"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} must be a fraction between 0 and 1, got {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """What determines the weights, as plain values.

        Settings that came later are left out at their defaults, so that a checkpoint, which carries them, is the same
        file as before; paths are, too: what was read from them is known by its hash.
        """
        first = "schedule"
        names = [f.name for f in fields(self)]
        later = {f.name: f.default for f in fields(self) if names.index(f.name) >= names.index(first)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in PATHS and (name not in later or value != later[name])
        }

    def params_at(self, params: Mapping[str, float], epoch: int) -> dict[str, float]:
        """The parameters of the loss in an epoch, counted from 1."""
        passed = {name: value for name, share, value in self.param_schedule if epoch > round(share * self.epochs)}
        return {**params, **passed}

    def epsilon_share_at(self, epoch: int, passed: float) -> float:
        """How much of epsilon is trained against in an epoch, counted from 1, of which a fraction has passed."""
        return min(1.0, (epoch - 1 + passed) / self.warm_up) if self.warm_up else 1.0

    def lr_at(self, epoch: int, passed: float = 0.0) -> float:
        """The learning rate in an epoch, counted from 1, of which a fraction has passed."""
        done = (epoch - 1 + passed) / self.epochs
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "cyclic":
            return self.lr * min(done / self.peak, (1 - done) / (1 - self.peak))
        return ([self.lr] + [lr for start, lr in self.milestones if epoch >= start])[-1]


def with_overrides(chosen: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with some fields replaced by values given as text, such as 8/255 for a number.

    Raises: InputError for a value of another type.
    """
    parsed: dict[str, Any] = {}
    types = {f.name: f.type for f in fields(chosen)}
    for name, text in overrides.items():
        declared = types[name]
        kind = declared.__name__ if isinstance(declared, type) else str(declared)
        try:
            parsed[name] = text if kind == "str" else parse_number(text) if "float" in kind else int(text)
        except ValueError:
            raise InputError(f"--set {name} must be {kind}, got {text!r}") from None
    return replace(chosen, **parsed)
