"""Free adversarial training: one backward pass moves the weights and the perturbation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.pgd import ascend
from model_zoo.defenses.context import TrainingContext

DELTA = "delta"


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, rel_step_size: float) -> Tensor:
    """Mean cross-entropy at x + delta; delta belongs to the place in the batch and climbs while the loss is descended.

    It is meant for a recipe with several replays of every batch: there the attack takes its steps.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        rel_step_size: of delta, as a fraction of epsilon.

    Returns: a scalar; differentiating it moves delta, once.
    Source: Shafahi et al., arXiv:1904.12843, Algorithm 1.
    Deviations: delta is clipped to the pixel range of the image that it was last added to, and begins anew with every
        epoch, so that an interrupted training can go on.
    """
    delta = ctx.carried.get(DELTA, torch.zeros_like(x))[: len(x)]
    if len(delta) < len(x):
        delta = torch.cat([delta, torch.zeros_like(x[len(delta) :])])
    x_adv = ctx.threat.project(x + delta, x).detach().requires_grad_()

    def climb(gradient: Tensor) -> None:
        moved = ascend(ctx.threat, x_adv.detach(), x, gradient, rel_step_size) - x
        ctx.carried[DELTA] = torch.cat([moved, ctx.carried.get(DELTA, moved)[len(moved) :]])

    x_adv.register_hook(climb)
    return F.cross_entropy(model(x_adv), y)
