"""A model's mode and place, of models whose own methods for that were written otherwise."""

from contextlib import suppress
from typing import Any

from torch import nn

from attacks.errors import InputError, one_line


def frozen(model: nn.Module) -> nn.Module:
    """The model in eval mode, its parameters without gradients.

    Raises: InputError where its own `eval` or `train` fails.
    """
    try:
        with suppress(NotImplementedError):  # an exported program stays in the mode that it was exported in
            model.eval()  # which may return nothing
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
