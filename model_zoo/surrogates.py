"""Adaptive attacks: of a model's spec, that of what they search on in its place."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attacks.errors import InputError
from attacks.input_checks import class_count, require_gradient
from attacks.models.probe_images import probe_images
from attacks.models.quirks import find_quirks
from attacks.models.user_model import UserModel
from attacks.randomness import answers_at_random
from model_zoo.load import load_model
from model_zoo.masked.registry import mask_of
from model_zoo.model_spec import ModelSpec
from model_zoo.user_models.factory import code_of, find_factory

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
    normalisation = None if spec.quirks is None else spec.quirks.normalisation
    surrogate = load_model(replace(made, quirks=None), checkpoint_dir, classes=classes)
    probes = probe_images(shape)
    try:
        quirks = find_quirks(surrogate, probes, normalisation=normalisation)
        asked = UserModel(surrogate, quirks)
        got = class_count(asked, probes, probes.new_zeros(1))
        require_gradient(asked, probes)
    except InputError as error:
        raise InputError(f"--adaptive {function}: {error}") from None
    if got != classes:
        raise InputError(f"--adaptive {function}: expected {classes} logits as of the model, got {got}")
    return replace(made, quirks=quirks, randomized=answers_at_random(asked, probes))
