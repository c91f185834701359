"""A model's mode, place and recording of gradients, of models whose own methods for that were written otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attacks.errors import InputError, one_line

CPU = torch.device("cpu")


def frozen(model: nn.Module) -> nn.Module:
    """The model in eval mode, its parameters without gradients.

    Raises: InputError where its own `eval` or `train` fails.
    """
    try:
        model.eval()  # which may return nothing
    except NotImplementedError:  # an exported program stays in the mode that it was exported in; what is around it not
        for module in model.modules():
            module.training = False
    except Exception as error:  # the user's own code may raise what it likes
        raise InputError(
            f"{type(model).__name__}: expected a model with an eval mode, but eval() raised "
            f"{one_line(error)}; mend its eval or train"
        ) from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def moved(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """The model after `to`; a `to` of its own may return nothing, or take fewer arguments."""
    try:
        there = model.to(*args, **kwargs)
    except TypeError:
        there = nn.Module.to(model, *args, **kwargs)
    return there if isinstance(there, nn.Module) else model


def device_of(*models: nn.Module, default: torch.device = CPU) -> torch.device:
    """The device that all parameters and buffers are on; the default where there are none."""
    devices = {tensor.device for model in models for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1:
        raise InputError(f"expected models on one device, got {', '.join(sorted(map(str, devices)))}")
    return devices.pop() if devices else default


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """The model's parameters ask for no gradient in the block, and are afterwards as they were."""
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wants in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(wants)
