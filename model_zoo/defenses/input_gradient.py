"""Input-gradient regularisation: a loss that is flat around every image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float) -> Tensor:  # noqa: ARG001 (nothing is crafted)
    """Mean of CE(f(x), y) + beta * || d CE(f(x), y) / dx ||_2^2.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: weight of the squared gradient norm; 0 is natural training.

    Returns: a scalar, to be differentiated through the gradient (double back-propagation).
    Source: Ross and Doshi-Velez, arXiv:1711.09404 (RDV17 in Table 5 of TRADES).
    Deviations: none.
    """
    x = x.detach().requires_grad_()
    losses = F.cross_entropy(model(x), y, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    return losses.mean() + beta * gradient.square().flatten(1).sum(1).mean()
