"""Half-half: clean and adversarial loss in equal parts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, weight: float) -> Tensor:
    """(1 - weight) * clean cross-entropy + weight * adversarial cross-entropy.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        weight: of the adversarial part, in [0, 1]; 0 is natural training, 1 that on adversarial examples alone.

    Returns: a scalar.
    Source: Raghunathan et al., arXiv:2002.10716 (p-lambda/robust_tradeoff, madry_loss with beta 0.5): crafted in eval
        mode from a start close to the image, both halves in one forward pass.
    Deviations: none.
    """
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="gaussian")
    clean, adversarial = model(torch.cat([x, x_adv])).split(len(x))
    return (1 - weight) * F.cross_entropy(clean, y) + weight * F.cross_entropy(adversarial, y)
