"""Friendly adversarial training: PGD stops soon after an image is misclassified."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses import mart, trades
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.search import Iterates, Stop, search


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, tau: float) -> Tensor:
    """Mean cross-entropy at the points where early-stopped PGD leaves the images.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        tau: as of `after_mistakes`; from the number of steps on this is Madry adversarial training.

    Returns: a scalar.
    Source: Zhang et al., arXiv:2002.11242, Algorithms 1 and 2 (FAT.py, earlystop.py).
    Deviations: no noise is added after the steps (omega 0.001 in the authors' FAT.py).
    """
    found = search(ctx, model, x, y, loss="cross-entropy", start="uniform", stop=after_mistakes(tau))
    return F.cross_entropy(model(found.x_adv), y)


def trades_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float, tau: float) -> Tensor:
    """FAT for TRADES: the TRADES objective at early-stopped points.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: as of TRADES; tau: as of `after_mistakes`; from the number of steps on this is TRADES.

    Returns: a scalar.
    Source: Zhang et al., arXiv:2002.11242 (FAT_for_TRADES.py).
    Deviations: none.
    """
    found = search(ctx, model, x, y, loss="kl-divergence", start="gaussian", stop=after_mistakes(tau))
    return trades.objective(model(x), model(found.x_adv), y, beta=beta)


def mart_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float, tau: float) -> Tensor:
    """FAT for MART: the MART objective at early-stopped points.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: as of MART; tau: as of `after_mistakes`; from the number of steps on this is MART.

    Returns: a scalar.
    Source: Zhang et al., arXiv:2002.11242 (FAT_for_MART.py).
    Deviations: none.
    """
    found = search(ctx, model, x, y, loss="cross-entropy", start="gaussian", stop=after_mistakes(tau))
    return mart.objective(model(x), model(found.x_adv), y, beta=beta)


def after_mistakes(tau: float) -> Stop:
    """An image stops at a misclassified iterate once tau earlier ones were misclassified, in a row or not.

    With tau 0 that is the first misclassified iterate. So the counter of the authors' earlystop.py, which starts at
    tau, goes down at every misclassified iterate and never up.
    """

    def stop(now: Iterates) -> Tensor:
        return ~now.correct & (now.mistakes >= tau)

    return stop
