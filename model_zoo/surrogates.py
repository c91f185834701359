"""Adaptive attacks: of a model's spec, that of what they search on in its place."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from torch import Tensor, nn

from attacks.errors import InputError, one_line
from attacks.input_checks import class_count, require_gradient
from attacks.models.modes import frozen
from attacks.models.probe_images import probe_images
from attacks.models.quirks import find_quirks
from attacks.models.user_model import UserModel
from attacks.randomness import answers_at_random
from model_zoo.load import load_model
from model_zoo.masked.registry import mask_of
from model_zoo.model_spec import ModelSpec
from model_zoo.user_models.factory import code_of, find_factory
from model_zoo.weights.checkpoint import state_digest

NAME = "{} adaptive"
"""What a model's surrogate is called; no model has such a name of its own."""


def own_surrogate(spec: ModelSpec) -> ModelSpec | None:
    """The surrogate that the mask of a model has; None for a model without a mask."""
    mask = None if spec.code else mask_of(spec.architecture)
    if mask is None:
        return None
    code = f"{mask.name} {mask.version}"
    return replace(spec, name=NAME.format(spec.name), surrogate=mask.name, surrogate_code=code)


def users_surrogate(
    spec: ModelSpec, function: str, checkpoint_dir: Path, *, shape: Sequence[int], classes: int
) -> ModelSpec:
    """The surrogate that a user's function makes of a model.

    Args:
        function: PATH.py:FUNCTION or module:FUNCTION; from a module in eval mode to one that returns logits.
        shape: (C, H, W) of the images. classes: how many logits it must return.

    Raises: InputError for a function that cannot be used, and for what it makes that is no classifier with a gradient.
    """
    module, found = find_factory(function, option="--adaptive")
    code = f"{function.rpartition(':')[2]}@{code_of(module, found) or function}"
    made = replace(spec, name=NAME.format(spec.name), surrogate=function, surrogate_code=code)
    surrogate = load_model(replace(made, quirks=None), checkpoint_dir, classes=classes)
    return _observed(made, surrogate, probe_images(shape), classes, named=f"--adaptive {function}: ")


def surrogate_in_memory(
    spec: ModelSpec, model: nn.Module, function: Callable[[nn.Module], nn.Module], x: Tensor, *, classes: int
) -> tuple[ModelSpec, nn.Module]:
    """The surrogate that a function of the caller's makes of a model of the caller's: its spec, and itself.

    Args:
        x: (N, C, H, W), some of the images, on the model's device.

    Raises: InputError for what is no classifier with a gradient.
    """
    if isinstance(function, nn.Module) or not callable(function):
        raise InputError(
            "adaptive: expected a function from the model to what is searched on in its place, got "
            f"{type(function).__name__}; of a module, use lambda model: module"
        )
    try:
        surrogate = function(model)
    except Exception as error:  # the caller's own code may raise what it likes
        raise InputError(f"adaptive: the function failed: {one_line(error)}") from error
    if not isinstance(surrogate, nn.Module):
        raise InputError(
            f"adaptive: expected a function that returns a torch.nn.Module, got {type(surrogate).__name__}"
        )
    code = _code_in_memory(function, surrogate)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    made = replace(spec, name=NAME.format(spec.name), surrogate=name, surrogate_code=f"{name}@{code}")
    made = _observed(made, frozen(surrogate), x, classes, named="adaptive: ")
    assert made.quirks is not None
    return made, UserModel(surrogate, made.quirks)


def _code_in_memory(function: Callable[[nn.Module], nn.Module], surrogate: nn.Module) -> str:
    """What tells a function and what it made from others: its source, its defaults and the surrogate's weights.

    A function that holds variables of another one, or whose source is not there, equals none, not even itself: nothing
    that is stored is taken for what it would find. Globals that a function reads are not looked at.
    """
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return uuid4().hex
    if getattr(function, "__closure__", None) or not inspect.isfunction(function):
        return uuid4().hex
    defaults = repr((function.__defaults__, function.__kwdefaults__))
    return hashlib.sha256(f"{source}{defaults}{state_digest(surrogate.state_dict())}".encode()).hexdigest()


def _observed(spec: ModelSpec, surrogate: nn.Module, x: Tensor, classes: int, *, named: str) -> ModelSpec:
    """The spec of a surrogate with how it must be run, and whether it answers at random."""
    normalisation = None if spec.quirks is None else spec.quirks.normalisation
    try:
        quirks = find_quirks(surrogate, x, normalisation=normalisation, tries_layouts=False)
        asked = UserModel(surrogate, quirks)
        got = class_count(asked, x, x.new_zeros(1))
        require_gradient(asked, x)
    except InputError as error:
        raise InputError(f"{named}{error}") from None
    if got not in {classes, classes + spec.rejects}:
        raise InputError(f"{named}expected {classes + spec.rejects} logits, as of the model, got {got}")
    return replace(spec, quirks=quirks, randomized=answers_at_random(asked, x))
