"""Normalisation in front of a model, so that epsilon keeps its meaning in pixels: the layer, and values by name."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from attacks.errors import InputError
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
    return Normalisation(means, stds)


def put_in_front(said: Normalisation | None, brought: Normalisation | None = None) -> Normalisation | None:
    """What stands in front of a model: what the user says, else what its source brings along; None for nothing."""
    chosen = brought if said is None else said
    return chosen if chosen is not None and chosen.mean else None


def require_none_inside(model: nn.Module) -> None:
    """Raise InputError where a part of a model holds a mean and a std of images, which another would be added to."""
    for name, module in model.named_modules():
        tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        held = vars(module) | dict(tensors)
        is_norm = "norm" in type(module).__name__.lower()
        constants = [key for key, value in held.items() if _is_for_channels(value) or (is_norm and _is_few(value))]
        if any(map(IS_MEAN.fullmatch, constants)) and any(map(IS_STD.fullmatch, constants)):
            place = f"its part {name!r} ({type(module).__name__})" if name else f"the {type(module).__name__} itself"
            raise InputError(
                f"expected a model without a normalisation, since a mean and a std are given, but {place} holds one; "
                "leave them out, or hand over the network alone"
            )


def _is_for_channels(value: object) -> bool:
    """Whether it is a tensor of one number a channel, laid out for images."""
    return isinstance(value, Tensor) and value.ndim >= 3 and value.numel() <= MOST_CHANNELS


def _is_few(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() <= MOST_CHANNELS
    return isinstance(value, Real) or (isinstance(value, (list, tuple)) and 0 < len(value) <= MOST_CHANNELS)


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
