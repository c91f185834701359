"""The smoothed classifier of a model: what randomised smoothing certifies, as a model that is attacked and ranked."""

from dataclasses import replace

from attacks.errors import InputError
from model_zoo.masked.registry import find_mask
from model_zoo.model_spec import ModelSpec

NOISE = "noise-"
"""How the part of a name begins that stands for Gaussian noise in front of a model."""


def smoothed(spec: ModelSpec, part: str) -> ModelSpec:
    """A registered model behind Gaussian noise: judged by its mean probabilities, and attacked through their draws.

    Args:
        spec: the base classifier.
        part: noise-SIGMA, in pixel scale.

    Raises: InputError for a user's own model, or a part that is none.
    """
    if spec.code:
        raise InputError(
            f"{spec.name}+{part}: expected a registered model, got your own; "
            "put the noise in front of it in its factory"
        )
    _, sigma = find_mask(part)
    name = f"{NOISE}{sigma:g}"
    return replace(spec, name=f"{spec.name}+{name}", architecture=f"{spec.architecture}+{name}", randomized=True)
