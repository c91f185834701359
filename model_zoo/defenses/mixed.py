"""Mixed minibatches: half of the images clean, half one-step adversarial at an epsilon of their own."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.loop import take
from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, weight: float) -> Tensor:
    """(sum of clean CE + weight * sum of adversarial CE) / (clean images + weight * adversarial images).

    The second half of the batch is attacked by FGSM at |n| * epsilon / 2, at most epsilon, with n standard normal.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        weight: of an adversarial image; 0 is natural training on the first half.

    Returns: a scalar.
    Source: Kurakin et al., arXiv:1611.01236 (KGB17 in Table 5 of TRADES).
    Deviations: the true label is climbed, where the paper descends to the least likely one; too large a draw is cut
        off, not drawn again; the full step is shortened after it was cut to the pixel range.
    """
    half = (len(x) + 1) // 2
    rest = replace(ctx, draws=take(ctx.draws, slice(half, None)))
    clean, attacked = x[:half], x[half:]
    full = rest.craft(model, attacked, y[half:], loss="cross-entropy", start="none", steps=1, rel_step_size=1.0)
    length = (rest.draws.normal((1, 1, 1), stream=3).abs() / 2).clamp_max(1.0)
    x_adv = ctx.threat.project(attacked + length * (full - attacked), attacked)
    losses = F.cross_entropy(model(torch.cat([clean, x_adv])), y, reduction="none")
    weights = torch.ones_like(losses)
    weights[half:] = weight
    return (weights * losses).sum() / weights.sum()
