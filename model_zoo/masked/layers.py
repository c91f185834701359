"""Layers of a network exchanged: its first convolution, its activations."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from attacks.errors import InputError


def with_input_channels(network: nn.Module, factor: int) -> nn.Module:
    """The network, changed in place: its first convolution takes so many times as many channels.

    Raises: InputError for a network without a convolution.
    """
    first = next(((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        raise InputError("thermometer encoding: expected a network that begins with a convolution, got one without")
    name, old = first
    wider = copy.deepcopy(old)  # of whatever class it is
    wider.in_channels = old.in_channels * factor
    wider.weight = nn.Parameter(torch.empty(old.out_channels, wider.in_channels // old.groups, *old.kernel_size))
    wider.reset_parameters()
    _exchange(network, name, wider)
    return network


def with_activations(network: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """The network, changed in place: each of its ReLUs is another activation.

    Raises: InputError for a network that has no ReLU as a module.
    """
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.ReLU)]
    if not names:
        raise InputError(
            f"{type(network).__name__}: expected a network with modules nn.ReLU, whose activations can be exchanged, "
            "got none; use digits-cnn, small-cnn or strided-cnn"
        )
    for name in names:
        _exchange(network, name, make())
    return network


def _exchange(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, layer)
