"""TRADES with spatial invariance: predictions that stay the same where an image is moved and then changed."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.losses import kl_divergence
from attacks.spatial import transform
from attacks.threat_model import ThreatModel
from model_zoo.defenses import trades
from model_zoo.defenses.context import TrainingContext, under_attack
from model_zoo.defenses.registry import DefenseSpec

MOVE_STREAM = 9
MOVED_BY, CHANGED_FROM = 0.125, 0.5
"""Of the warm-up: the share of it by which moves have their full size, and the share from which pixels change. Where
both grow at once, the network stops to learn moves."""


def moved_trades(moves: ThreatModel, pixels: ThreatModel, *, beta: float, tried: int) -> DefenseSpec:
    """The defense against the worst of some random moves, followed by PGD.

    Args:
        moves: a spatial threat model. pixels: the threat model that is trained against.
        beta: weight of the divergence. tried: how many random moves are asked about.
    """

    def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float) -> Tensor:
        grown = ctx.threat.epsilon / pixels.epsilon
        limits = x.new_tensor([moves.degrees, moves.epsilon, moves.epsilon]) * min(1.0, grown / MOVED_BY)
        x_adv = worst_move(model, x, (2 * ctx.draws.uniform((tried, 3), stream=MOVE_STREAM) - 1) * limits)
        share = max(0.0, (grown - CHANGED_FROM) / (1 - CHANGED_FROM))
        if share:
            changed = replace(ctx, threat=replace(pixels, epsilon=share * pixels.epsilon))
            x_adv = changed.craft(model, x_adv, y, loss="kl-divergence", start="gaussian", clean=x)
        return trades.objective(model(x), model(x_adv), y, beta=beta)

    return DefenseSpec(
        "trades-moved",
        batch_loss=batch_loss,
        params={"beta": beta},
        model_name="trades-moved",
        is_robust=True,
        paper="Zhang et al., arXiv:1901.08573, Equation 5; moves: Engstrom et al., arXiv:1712.02779, Section 3.2",
        summary="TRADES on the worst of some random moves, then changed by PGD",
    )


def worst_move(model: nn.Module, x: Tensor, proposed: Tensor) -> Tensor:
    """(N, C, H, W) each image moved to where the prediction diverges most from that of the image itself.

    Args:
        x: (N, C, H, W) in [0, 1]. proposed: (N, K, 3) parameters of `transform`.
    """
    k = proposed.shape[1]
    moved = transform(x.repeat_interleave(k, 0), proposed.flatten(0, 1))
    with under_attack(model), torch.no_grad():
        clean = F.log_softmax(model(x), 1).repeat_interleave(k, 0)
        which = kl_divergence(model(moved), clean).view(-1, k).argmax(1)
    return moved.view(len(x), k, *x.shape[1:])[torch.arange(len(x)), which]
