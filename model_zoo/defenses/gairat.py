"""Geometry-aware instance-reweighted training: images near the decision boundary count more."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.losses import kl_divergence
from model_zoo.defenses import trades
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.fat import after_mistakes
from model_zoo.defenses.search import search

LAST_LAM = 10.0
"""Of GAIR-RST: above it its authors leave the margin loss out."""


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, lam: float) -> Tensor:
    """Cross-entropy at the PGD examples, weighted by how few of an image's iterates are classified correctly.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        lam: as of `weights`; infinity is Madry adversarial training.

    Returns: a scalar.
    Source: Zhang et al., arXiv:2010.01736, Equation 6 and Algorithms 1 and 2.
    Deviations: none.
    """
    found = search(ctx, model, x, y, loss="cross-entropy", start="uniform")
    return (weights(found.correct, ctx.steps, lam) * F.cross_entropy(model(found.x_adv), y, reduction="none")).mean()


def fat_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, lam: float, tau: float) -> Tensor:
    """GAIR-FAT: the same weights at the points of early-stopped PGD.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        lam: as of `weights`; infinity is FAT.
        tau: as of FAT.

    Returns: a scalar.
    Source: Zhang et al., arXiv:2010.01736 (GAIR_FAT.py).
    Deviations: early stopping in the authors' code re-orders the logits, but not the labels; here they stay together.
    """
    found = search(ctx, model, x, y, loss="cross-entropy", start="uniform", stop=after_mistakes(tau))
    return (weights(found.correct, ctx.steps, lam) * F.cross_entropy(model(found.x_adv), y, reduction="none")).mean()


def rst_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float, lam: float) -> Tensor:
    """GAIR-RST: CE(f(x), y) + beta * mean of w * KL(p(x) || p(x')) + (1 - w) * KL(p(x) || p(x'')).

    x' maximises the divergence, x'' the margin loss; w = (1 + tanh(lam + steps / 2 - kappa)) / 2, where kappa counts
    the iterates towards x' that are classified correctly. Above `LAST_LAM`, as in the burn-in, this
    is TRADES: no x'' is crafted, and batch statistics see none.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: as of TRADES.
        lam: at most `LAST_LAM`; any above it is TRADES.

    Returns: a scalar.
    Source: Zhang et al., arXiv:2010.01736 (GAIR_RST/losses.py).
    Deviations: none.
    """
    if lam > LAST_LAM:
        return trades.batch_loss(model, x, y, ctx, beta=beta)
    found = search(ctx, model, x, y, loss="kl-divergence", start="gaussian")
    by_margin = ctx.craft(model, x, y, loss="margin", start="gaussian")
    weight = (1 + torch.tanh(lam + ctx.steps / 2 - found.correct)) / 2
    logits = model(x)
    log_p = F.log_softmax(logits, 1)
    divergence = weight * kl_divergence(model(found.x_adv), log_p)
    divergence = divergence + (1 - weight) * kl_divergence(model(by_margin), log_p)
    return F.cross_entropy(logits, y) + beta * divergence.mean()


def weights(correct: Tensor, steps: int, lam: float) -> Tensor:
    """(N,) (1 + tanh(lam + 5 * (1 - 2 * kappa / steps))) / 2 with kappa the correct iterates, scaled to mean 1.

    Source: Equation 6; the scaling is that of the authors' GAIRAT.py.
    """
    weight = (1 + torch.tanh(lam + 5 * (1 - 2 * correct / max(steps, 1)))) / 2
    return weight * len(weight) / weight.sum()
