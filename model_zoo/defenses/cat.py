"""Curriculum adversarial training: attacks that grow stronger, and the weaker ones never forgotten."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.search import Iterates, search


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, ramp: float) -> Tensor:
    """Mean cross-entropy of a batch whose k + 1 equal parts are attacked with 0, 1, ..., k steps of 2 * epsilon / k.

    The level k grows from 0 to the recipe's steps over the first part of the epochs. Examples are crafted in the mode
    that the model is in, train mode in a training, so that batch statistics see every step.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        ramp: the fraction of the epochs at whose end the last level begins.

    Returns: a scalar.
    Source: Cai et al., arXiv:1805.04807, with its batch mixing
        (sunblaze-ucb/curriculum-adversarial-training-CAT advtrain_all.py, PGDAttack.py).
    Deviations: levels change by epoch, not when validation accuracy stalls; steps are those of the level in all parts,
        and are not multiplied by a draw; parts are attacked together, so that they share batch statistics; inputs are
        not quantised.
    """
    level = level_at(ctx.epoch, ctx.epochs, ramp=ramp, highest=ctx.steps)
    if level == 0:
        return F.cross_entropy(model(x), y)
    steps = torch.arange(len(x), device=x.device) * (level + 1) // len(x)

    def stop(now: Iterates) -> Tensor:
        return now.step >= steps[now.rows]

    found = search(
        ctx, model, x, y, loss="cross-entropy", start="uniform", stop=stop, rel_step_size=2 / level, keeps_mode=True
    )
    x_adv = torch.where((steps == 0)[:, None, None, None], x, found.x_adv)
    return F.cross_entropy(model(x_adv), y)


def level_at(epoch: int, epochs: int, *, ramp: float, highest: int) -> int:
    """The level of an epoch, counted from 1: all are equally long, but for the last."""
    length = max(ramp * epochs, 1.0)
    return min(highest, int((epoch - 1) * highest / length))
