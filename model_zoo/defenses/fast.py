"""Fast adversarial training: one step from a random start (FGSM-RS)."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, rel_step_size: float) -> Tensor:
    """Mean cross-entropy one step away from a uniform random start.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        rel_step_size: as a fraction of epsilon; above 1, since the start lies inside the ball.

    Returns: a scalar.
    Source: Wong et al., arXiv:2001.03994, Algorithm 3.
    Deviations: examples are crafted in eval mode.
    """
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="uniform", steps=1, rel_step_size=rel_step_size)
    return F.cross_entropy(model(x_adv), y)
