"""The training of a masked network: cross-entropy, and what the parts of its mask learn beside it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext
from model_zoo.masked.mask_spec import Learner
from model_zoo.masked.temperature import Temperature


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext) -> Tensor:  # noqa: ARG001 (nothing is crafted)
    """Mean clean cross-entropy, and the own losses of the mask's parts; without a mask it is natural training.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.

    Returns: a scalar.
    """
    return F.cross_entropy(model(x), y) + _own_losses(model, x, y)


def distillation_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext) -> Tensor:
    """Mean divergence from the predictions of a teacher of the same temperature, which is the model's own.

    That is the cross-entropy with them, less a constant.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.

    Returns: a scalar.
    Source: Papernot et al., arXiv:1511.04508, Section IV.
    Deviations: none.
    """
    with torch.no_grad():
        soft = (ctx.first_stage(x) / _temperature(model)).softmax(1)
    divergence = F.kl_div(F.log_softmax(model(x), 1), soft, reduction="batchmean")
    return divergence + _own_losses(model, x, y)


def _own_losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of all parts that learn beside the network."""
    parts = [part.own_loss(x, y) for part in model.modules() if isinstance(part, Learner)]
    return sum(parts, torch.zeros((), device=x.device))


def _temperature(model: nn.Module) -> float:
    """By which the model divides its logits in train mode; 1 where it has none."""
    return next((part.temperature for part in model.modules() if isinstance(part, Temperature)), 1.0)
