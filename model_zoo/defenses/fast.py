"""Fast adversarial training: one step from a random start (FGSM-RS)."""

import torch.nn.functional as F
from torch import Tensor, nn

from attacks.oracle import Oracle
from attacks.pgd import State, step
from model_zoo.defenses.context import TrainingContext, under_attack


def batch_loss(
    model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, rel_step_size: float, clip_start: float
) -> Tensor:
    """Mean cross-entropy one step away from a uniform random start.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        rel_step_size: as a fraction of epsilon; above 1, since the start lies inside the ball.
        clip_start: 1 to clip the start to [0, 1], as the authors do on CIFAR-10; 0 for the whole ball, as Algorithm 3
            has it: where most pixels are 0 or 1, a clipped start leaves them no place but the ball's two ends.

    Returns: a scalar.
    Source: Wong et al., arXiv:2001.03994, Algorithm 3.
    Deviations: examples are crafted in eval mode.
    """
    if clip_start:
        x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="uniform", steps=1, rel_step_size=rel_step_size)
        return F.cross_entropy(model(x_adv), y)
    start = ctx.threat.unclipped_start(x, ctx.draws)
    oracle = Oracle(model, ctx.threat, precision=ctx.precision)
    with under_attack(model):
        state = step(oracle, State(x, y, start, ctx.draws.step), loss="cross-entropy", rel_step_size=rel_step_size)
    return F.cross_entropy(model(state.x_adv), y)
