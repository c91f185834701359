"""Normalisation in front of a model, so that epsilon keeps its meaning in pixels: the layer, and values by name."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.models.reach import reachable
from attacks.names import lookup
from attacks.number import parse_number

Given = str | float | Iterable[float] | None
"""What a user may say of a mean or a std: a name, a number, one number a channel, or a text of these; None: nothing."""

_BEFORE = r"_?(?:(?:image|pixel|input|data|norm|normali[sz]er?|normali[sz]ation)_)?"
IS_MEAN = re.compile(rf"{_BEFORE}(?:means?|mu)")
IS_STD = re.compile(rf"{_BEFORE}(?:stds?|sds?|sigma)")
"""What people call the constants of a normalisation; the running_mean of a batch norm is none."""
MOST_CHANNELS = 4
"""The most values that such a constant has."""


class Normalize(nn.Module):
    """Maps images in [0, 1] to `(x - mean) / std`, channel by channel.

    It sits inside the model: attacks see [0, 1] only, and a perturbation budget is never divided by `std`. The
    constants move with the model but are no part of its state dict, because released checkpoints do not carry them.

    Args:
        mean, std: one number per channel, in pixel scale [0, 1]; every `std` above 0.

    Raises:
        InputError: different lengths, or a `std` that is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise InputError(
                f"normalisation expects a mean and a std above 0 for every channel, got mean {tuple(mean)} "
                f"and std {tuple(std)}; give equally many of both"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to normalised images of the same shape."""
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class Normalisation:
    """What a model's images are normalised by.

    Args:
        mean, std: one number per channel, in pixel scale [0, 1]; empty where they are left as they are.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        """As the options take it."""
        mean, std = (",".join(map(repr, values)) for values in (self.mean, self.std))
        return f"--mean {mean} --std {std}" if self.mean else "--mean none"

    def layer(self) -> nn.Module:
        """The layer that does it."""
        return Normalize(self.mean, self.std) if self.mean else nn.Identity()

    def require_channels(self, channels: int) -> None:
        """Raise InputError unless it is for images of that many channels."""
        if self.mean and len(self.mean) != channels:
            raise InputError(
                f"expected {channels} value{'s' if channels > 1 else ''} of mean and std, one a channel of the images, "
                f"got {self}; {_for_channels(self, channels)}"
            )


USUAL = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": Normalisation((0.1307,), (0.3081,)),
    "none": Normalisation((), ()),
}
"""The usual ones; `none` takes the place of one that a model's source brings along."""


def normalisation_of(mean: Given, std: Given) -> Normalisation | None:
    """What a user says of a normalisation, by --mean and --std or from Python; None where nothing is said.

    A name alone, on either side, stands for both.

    Raises: InputError for one of the two alone, other lengths, a mean outside of [0, 1], a std that is not above 0, and
        what is no number.
    """
    if mean is None and std is None:
        return None
    mean, std = (value.strip() if isinstance(value, str) else value for value in (mean, std))
    mean = std if mean is None and _is_name(std) else mean
    std = mean if std is None and _is_name(mean) else std
    for given, other, lacking in ((mean, std, "mean"), (std, mean, "std")):
        if given is None:
            raise InputError(f"expected both a mean and a std, got no {lacking} beside {other!r}; give both, or a name")
    means, stds = _values(mean, "mean"), _values(std, "std")
    if len(means) != len(stds):
        raise InputError(
            f"expected as many values of std as of mean, got {len(stds)} and {len(means)}; give one a channel"
        )
    for value in means:
        if not 0 <= value <= 1:
            raise InputError(f"mean must be in [0, 1] pixel scale, got {value:g}; divide mean and std by 255?")
    for value in stds:
        if not 0 < value < math.inf:
            raise InputError(f"std must be above 0, got {value:g}; leave both out for images as they are")
        if value > 1:
            raise InputError(f"std must be in (0, 1] pixel scale, got {value:g}; divide mean and std by 255?")
    return Normalisation(means, stds)


def put_in_front(said: Normalisation | None, brought: Normalisation | None = None) -> Normalisation | None:
    """What stands in front of a model: what the user says, else what its source brings along; None for nothing."""
    chosen = brought if said is None else said
    return chosen if chosen is not None and chosen.mean else None


def require_none_inside(model: nn.Module, channels: int) -> None:
    """Raise InputError where a part of a model holds a mean and a std of images, which another would be added to.

    Parts are its modules, and whatever else it reaches that can be called, such as transforms in a list.

    Args:
        channels: of the images.
    """
    named = {id(module): name for name, module in model.named_modules()}
    for part in reachable(model):
        if not callable(part) or isinstance(part, (type, FunctionType)) or not _normalises(part, channels):
            continue
        name = named.get(id(part), "")
        place = f"its part {name!r} ({type(part).__name__})" if name else f"the {type(part).__name__} itself"
        raise InputError(
            f"expected a model without a normalisation, since a mean and a std are given, but {place} holds one; "
            "leave them out, or hand over the network alone"
        )


def _normalises(part: object, channels: int) -> bool:
    """Whether an object holds a mean and a std of images among its attributes, parameters and buffers."""
    tensors: dict[str, object] = {}
    if isinstance(part, nn.Module):
        tensors = dict((*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)))
    held = getattr(part, "__dict__", {}) | tensors
    is_norm = "norm" in type(part).__name__.lower()
    means, stds = (
        [value for name, value in held.items() if isinstance(name, str) and kind.fullmatch(name)]
        for kind in (IS_MEAN, IS_STD)
    )
    return any(
        _is_pair(mean, std, channels) or (is_norm and bool(_numbers(mean) and _numbers(std)))
        for mean in means
        for std in stds
    )


def _is_pair(mean: object, std: object, channels: int) -> bool:
    """Whether they are a mean and a std of images, by their shape: of noise, a mean and a std are single numbers.

    Laid out for images, or one number a channel; of a single channel a tensor, whose mean is not that of noise.
    """
    means, stds = _numbers(mean), _numbers(std)
    if not means or not stds:
        return False
    if any(isinstance(value, Tensor) and value.ndim >= 3 for value in (mean, std)):
        return True
    if channels > 1:
        return len(means) == len(stds) == channels
    return isinstance(mean, Tensor) and isinstance(std, Tensor) and len(means) == len(stds) == 1 and means[0] != 0


def _numbers(value: object) -> list[float]:
    """The numbers of a mean or a std, where it is one: few, of any type; else none."""
    if isinstance(value, Tensor):
        few = value.numel() <= MOST_CHANNELS and (value.is_floating_point() or value.ndim > 0)
        return [float(number) for number in value.detach().flatten().tolist()] if few and not value.is_meta else []
    if isinstance(value, np.ndarray):
        return [float(number) for number in value.flatten()] if value.size <= MOST_CHANNELS else []
    if isinstance(value, Real):
        return [float(value)]
    if isinstance(value, (list, tuple)) and len(value) <= MOST_CHANNELS and all(isinstance(v, Real) for v in value):
        return [float(number) for number in value]
    return []


def _is_name(given: Given) -> bool:
    return isinstance(given, str) and given[:1].isalpha()


def _values(given: Given, which: str) -> tuple[float, ...]:
    """The numbers of a mean or a std."""
    if isinstance(given, str) and _is_name(given):
        values: tuple[float, ...] = getattr(lookup(given, USUAL, f"normalisation for {which}"), which)
        return values
    words: Any = given.split(",") if isinstance(given, str) else [given] if isinstance(given, Real) else given
    try:
        values = tuple(parse_number(word.strip()) if isinstance(word, str) else float(word) for word in words)
    except (TypeError, ValueError):
        values = ()
    if not values or isinstance(given, bool) or not all(map(math.isfinite, values)):
        raise InputError(
            f"{which}: expected numbers such as 0.1307 or 0.485,0.456,0.406, or one of {', '.join(USUAL)}, got "
            f"{given!r}; give one a channel"
        )
    return values


def _for_channels(normalisation: Normalisation, channels: int) -> str:
    """What to give instead for images of another number of channels."""
    if len(set(zip(normalisation.mean, normalisation.std, strict=True))) == 1:
        repeated = Normalisation(normalisation.mean[:1] * channels, normalisation.std[:1] * channels)
        return f"give {repeated}"
    return "give as many"
