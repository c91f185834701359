"""What must hold before any attack: an error where the run would be meaningless, a flag where it is a caveat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.errors import InputError, one_line
from attacks.input_checks import check_pixels, require_gradient
from attacks.judge import predict
from attacks.out_of_memory import is_out_of_memory
from attacks.trial_size import trial_size
from benchmark.data.split import Split
from benchmark.evaluation.batch_size import on_fitting_batches
from benchmark.evaluation.gradient_flags import FEW, zero_gradients
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_flags import find_flags
from benchmark.evaluation.normalisation_flag import wanted_normalisation
from model_zoo.model_spec import ModelSpec

LOGIT_IMAGES = 64
"""How many images the checks of the logits look at; fewer large ones."""
GRADIENT_IMAGES = 256
"""How many images are asked for a gradient; fewer large ones."""


def check_images(split: Split) -> None:
    """Raise InputError unless the images are finite and in [0, 1] and the labels in range."""
    if isinstance(split.x, Tensor):  # others are decoded into this range
        check_pixels(split.x, of=f"{split.dataset}: ")
    if not (split.y.min() >= 0 and split.y.max() < split.classes):
        raise InputError(
            f"{split.dataset}: expected labels in 0..{split.classes - 1}, got {split.y.min()}..{split.y.max()}"
        )


class NotAboveChanceError(InputError):
    """A model that knows no more than which class is the most frequent."""


@dataclass(frozen=True)
class Checked:
    """What the checks of a model found.

    Args:
        prediction: (N,) classes of the clean images, on the device.
        flags: caveats of every number of the model.
        zero_gradients: percentage of images without gradient; None where the model has none at all.
    """

    prediction: Tensor
    flags: Sequence[str]
    zero_gradients: float | None


def check_identity(spec: ModelSpec, flags: Sequence[str]) -> None:
    """Raise InputError for a model that its verdicts could not be told by, or that is not as when it was first asked.

    Args:
        flags: as `check_model` finds them.
    """
    if spec.quirks is not None and not spec.answers:
        raise InputError(
            f"model {spec.name}: expected answers to fixed images (of noise, and smooth ones), by which its stored "
            "verdicts are told from those of a changed model, got none; have it take any image in [0, 1], or have "
            "benchmark.evaluate keep no store (store=None)"
        )
    if "randomized" in flags and not spec.randomized:
        raise InputError(
            f"model {spec.name}: expected the same logits at every pass, as for the fixed images of noise, got others; "
            'have it draw for all images, or for none (a card says "randomized": true)'
        )


@torch.no_grad()
def check_model(
    name: str,
    model: nn.Module,
    split: Split,
    hardware: Hardware,
    *,
    needs_gradients: bool = True,
    is_random: bool = False,
    rejects: bool = False,
) -> Checked:
    """What must be known of a model before it is attacked.

    Args:
        needs_gradients: whether an attack will ask it for them.
        is_random: whether it is known to answer at random.
        rejects: whether it has a logit behind those of the classes, by which it rejects an image.

    Returns: its clean predictions, and its caveats, flags by `model_flags.py`.
    Raises: InputError for logits of a wrong shape or not finite, for a model that cannot take the images or hides its
        gradient, and for a clean accuracy that is not above chance.
    """
    x = split.x[: min(trial_size(split.x, LOGIT_IMAGES), hardware.batch_size)].to(hardware.device)
    try:
        first = model(x)
    except Exception as error:  # the model may be the user's own code, and raise what it likes
        if is_out_of_memory(error):
            raise
        reason = error if isinstance(error, InputError) else f"the model raised {one_line(error)}"
        raise InputError(
            f"model {name}: cannot take {split.dataset} images of shape {tuple(x.shape)}: {reason}"
        ) from error
    expected = (len(x), split.classes + rejects)
    if not isinstance(first, Tensor) or tuple(first.shape) != expected:
        got = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise InputError(
            f"model {name}: expected logits of shape {expected} (one a class of {split.dataset}"
            f"{', and one for rejected images' if rejects else ''}), got {got}"
            + ("; name all classes, in the order of the logits, by --classes" if split.names else "")
            + _counted_from_one(split)
        )
    if not first.isfinite().all():
        raise InputError(
            f"model {name}: expected finite logits, got NaN or infinity; check its weights and normalisation"
        )
    y = split.y.to(hardware.device)
    size, device = hardware.batch_size, hardware.device
    without = None
    try:
        many = (part.to(device) for part in split.x[len(x) : LOGIT_IMAGES].split(size) if len(part))
        found = list(find_flags(model, x, first, many, is_random=is_random))
        prediction = predict(model, split.x, batch_size=size, bring=lambda part: part.to(device))
        if needs_gradients:
            require_gradient(model, x)
        if needs_gradients or _has_gradient(model, x):
            rows = _correct(split, prediction)
            parts = ((split.x[part].to(device), split.y[part].to(device)) for part in rows.split(size) if len(part))
            without = zero_gradients(model, parts)
            if without > FEW and without * len(rows) > 100:  # of few images one alone is no share
                found.append(f"zero-gradients({without:.0f}%)")
        else:
            found.append("no-gradients")
    except InputError as error:
        raise InputError(f"model {name}: {error}") from None
    correct = int((prediction == y).sum())
    wanted = wanted_normalisation(model, split, batch_size=size, device=device)
    of_class = split.y.bincount()
    chance = int(of_class.max()) if (of_class > 0).sum() > 1 else 0  # of one class alone, naming it says nothing
    if correct <= chance:
        hint = f"check input range, normalisation and the order of the classes{_counted_from_one(split)}"
        if wanted:
            hint = f"it does better on images normalised otherwise ({wanted}): mend its own, or give --mean and --std"
        if len(first) > 1 and torch.equal(first, first[:1].expand_as(first)):
            hint = "its logits are the same for every image: check its weights"
        raise NotAboveChanceError(
            f"model {name}: {correct} of {len(split)} clean images are classified correctly, and always "
            f"naming one class would get {chance}; {hint}"
        )
    return Checked(prediction, [*found, *([f"normalisation({wanted})"] if wanted else [])], without)


def check_on_fitting_batches(
    name: str, model: nn.Module, split: Split, hardware: Hardware, **known: bool
) -> tuple[Checked, Hardware]:
    """`check_model`, with what is known of the model, and the hardware with the batch that fits into memory."""
    return on_fitting_batches(name, hardware, lambda fitting: check_model(name, model, split, fitting, **known))


def _correct(split: Split, prediction: Tensor) -> Tensor:
    """The first images that are classified correctly; of large ones fewer, from all over the split: classes may lie
    one behind the other."""
    rows = (prediction.cpu() == split.y).nonzero().squeeze(1)
    size = trial_size(split.x, GRADIENT_IMAGES)
    return rows[:size] if size == GRADIENT_IMAGES else rows[:: max(1, math.ceil(len(rows) / size))]


def _counted_from_one(split: Split) -> str:
    """A hint where no image is of class 0."""
    return "" if split.y.min() == 0 else "; no image has the label 0: labels count from 0, so take 1 from each"


def _has_gradient(model: nn.Module, x: Tensor) -> bool:
    try:
        require_gradient(model, x)
    except InputError:
        return False
    return True
