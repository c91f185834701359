"""Madry adversarial training: the loss at the worst point that PGD finds, and nothing else."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext) -> Tensor:
    """Mean cross-entropy on adversarial examples from a uniform random start.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.

    Returns: a scalar.
    Source: Madry et al., arXiv:1706.06083, Equation 2.1.
    Deviations: examples are crafted in eval mode, so that batch statistics do not depend on the attack.
    """
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="uniform")
    return F.cross_entropy(model(x_adv), y)
