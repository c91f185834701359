"""MART: images that are misclassified already count more, and are pushed harder."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext

LEAST_LOG = math.log(1e-12)
"""Of p(x') in the divergence, which could grow without bound otherwise: then it pays to make all logits larger."""


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float) -> Tensor:
    """BCE(p(x'), y) + beta * mean of KL(p(x) || p(x')) * (1 - p_y(x)), where x' maximises the cross-entropy.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: lambda in the paper, weight of the divergence.

    Returns: a scalar.
    Source: Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020
        (YisenWang/MART mart.py).
    Deviations: the logarithm of p(x') is clamped at that of 1e-12, which the authors add to p(x').
    """
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="gaussian")
    return objective(model(x), model(x_adv), y, beta=beta)


def objective(logits: Tensor, logits_adv: Tensor, y: Tensor, *, beta: float) -> Tensor:
    """Boosted adversarial cross-entropy plus beta times the divergence, weighted by 1 - p(y | clean image)."""
    unsure = 1 - F.softmax(logits, 1).gather(1, y[:, None]).squeeze(1)
    log_p, log_p_adv = F.log_softmax(logits, 1), F.log_softmax(logits_adv, 1).clamp_min(LEAST_LOG)
    divergence = F.kl_div(log_p_adv, log_p, reduction="none", log_target=True).sum(1)
    return _boosted_cross_entropy(logits_adv, y) + beta * (divergence * unsure).mean()


def _boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """CE - log(1 - p of the best wrong class); the constants guard the logarithm, as in YisenWang/MART mart.py."""
    wrong = F.softmax(logits, 1).scatter(1, y[:, None], 0.0).amax(1)
    return F.cross_entropy(logits, y) - torch.log(1.0001 - wrong + 1e-12).mean()
