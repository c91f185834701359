"""Caveats of a model that a few passes show: each a flag on every number of it."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from attacks.models.user_model import UserModel
from attacks.randomness import answers_at_random
from attacks.trial_size import trial_size
from benchmark.evaluation.gradient_flags import GradientWatch

FEW = 8
"""Images that are asked about often: chance shows on a few in many passes, or on many in two."""
SAME_LOGITS = 1e-2
"""Largest difference, relative to the largest logit, between an image alone and in company; rounding is far less."""


def find_flags(
    model: nn.Module, x: Tensor, logits: Tensor, many: Iterable[Tensor] = (), *, is_random: bool = False
) -> Iterator[str]:
    """The caveats that show on some images.

    Args:
        x: (N, C, H, W) in [0, 1]; logits: (N, K) of a pass over x.
        many: batches of more images, which are asked about twice where they are needed.
        is_random: whether it is known to answer at random; else that is looked for.
    """
    if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() < 1e-3:
        yield "probabilities"
    is_random = is_random or answers_at_random(model, x[: trial_size(x, FEW)])
    is_random = is_random or any(answers_at_random(model, part, passes=2) for part in (x, *many))
    if is_random:
        yield "randomized"
    if any(module.training for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)):
        yield "dropout"
    asked = model
    if isinstance(model, UserModel) and model.quirks.keeps_state:
        yield "stateful"
        asked = model.in_one_copy()
    before = _state(asked)
    with GradientWatch() as watch:
        apart = asked(x[:1].repeat(2, 1, 1, 1))[:1]  # batch norm in train mode refuses a single one
    is_changed = any(not torch.equal(value, before[name]) for name, value in _state(asked).items())
    if is_changed and any(getattr(module, "training", False) for module in model.modules()):
        yield "train-mode"
    elif is_changed or watch.takes_gradients:
        yield "dynamic"
    elif not is_random and max((apart - logits[:1]).abs().max(), _by_place(model, x, logits)) > SAME_LOGITS * (
        logits.abs().max()
    ):
        yield "batch-dependent"


def _by_place(model: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
    """The largest difference of an image's logits when the batch is turned round."""
    turned: Tensor = model(x.flip(0)).flip(0)
    return (turned - logits).abs().max()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, those too that are not saved."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: value.clone() if value.layout == torch.strided else value.to_dense() for name, value in tensors}
