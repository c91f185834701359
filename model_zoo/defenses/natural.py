"""Natural training: no defense, the control."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext) -> Tensor:  # noqa: ARG001 (nothing is crafted)
    """Mean cross-entropy on the clean batch.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.

    Returns: a scalar.
    """
    return F.cross_entropy(model(x), y)
