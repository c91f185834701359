"""What must hold before any attack: an error where the run would be meaningless, a flag where it is a caveat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel
from benchmark.data import Split
from benchmark.hardware import Hardware
from benchmark.verdicts import predict

PROBE = 64
"""How many images the checks of the logits look at."""


def check_images(split: Split) -> None:
    """Raise InputError unless the images are finite and in [0, 1] and the labels in range."""
    low, high = split.x.aminmax()
    if not (low >= 0 and high <= 1):
        raise InputError(f"{split.dataset}: expected pixels in [0, 1], got [{low:g}, {high:g}]; divide by 255")
    if not (split.y.min() >= 0 and split.y.max() < split.classes):
        raise InputError(
            f"{split.dataset}: expected labels in 0..{split.classes - 1}, got {split.y.min()}..{split.y.max()}"
        )


def _has_gradient(name: str, model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether most images have a gradient other than zero. Raises: InputError where the logits have none at all."""
    oracle = Oracle(model, ThreatModel("Linf", 0.0))
    try:
        _, gradient = oracle.loss_and_gradient(x, y, "margin")
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"model {name}: its logits have no gradient with respect to the image; remove no_grad, detach, numpy"
        ) from error
    return bool((gradient.flatten(1) != 0).any(1).float().mean() > 0.5)


@dataclass(frozen=True)
class Checked:
    """prediction: (N,) classes of the clean images, on the device. flags: caveats of every number of the model."""

    prediction: Tensor
    flags: Sequence[str]


@torch.no_grad()
def check_model(name: str, model: nn.Module, split: Split, hardware: Hardware) -> Checked:
    """What must be known of a model before it is attacked.

    Returns: its clean predictions, and its caveats: the flag "probabilities" where the outputs look like a softmax,
        "randomized" where two passes differ, "zero-gradients" where most images have no gradient to follow.
    Raises: InputError for logits of a wrong shape or not finite, for a model that cannot take the images, and for a
        clean accuracy that is not above chance.
    """
    x = split.x[: min(PROBE, hardware.batch_size)].to(hardware.device)
    try:
        first, second = model(x), model(x)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the model may be the user's own code, and raise what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model {name}: cannot take {split.dataset} images of shape {tuple(x.shape)}: {reason}"
        ) from error
    expected = (len(x), split.classes)
    if not isinstance(first, Tensor) or tuple(first.shape) != expected:
        got = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise InputError(
            f"model {name}: expected logits of shape {expected} (one a class of {split.dataset}), got {got}"
        )
    if not first.isfinite().all():
        raise InputError(
            f"model {name}: expected finite logits, got NaN or infinity; check its weights and normalisation"
        )
    flags = []
    if first.min() >= 0 and (first.sum(1) - 1).abs().max() < 1e-3:
        flags.append("probabilities")
    if not torch.equal(first, second):
        flags.append("randomized")

    if not _has_gradient(name, model, x, split.y[: len(x)].to(hardware.device)):
        flags.append("zero-gradients")

    prediction = predict(model, split.x.to(hardware.device), batch_size=hardware.batch_size)
    correct = int((prediction == split.y.to(hardware.device)).sum())
    chance = int(split.y.bincount().max())
    if correct <= chance:
        raise InputError(
            f"model {name}: {correct} of {len(split)} clean images are classified correctly, and always "
            f"naming one class would get {chance}; check input range, normalisation and the order of the classes"
        )
    return Checked(prediction, flags)
