"""Checks of the loss: is it smooth around the images, and had the attack done climbing it when it stopped."""

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.loop import run_steps
from attacks.oracle import Classifier, Oracle, Query
from attacks.spec import AttackSpec, Recurrence
from attacks.threat_model import ThreatModel
from benchmark.diagnose.finding import Measured, share_check, unknown
from benchmark.diagnose.passes import BATCH, in_parts, margin

DRAWS = 100
"""Random points around each image."""
LAST_STEPS, MOVES = 10, 0.05
"""Over so many steps at the end the rescaled loss may move by so much."""


def smooth(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    index: Tensor,
    *,
    seed: int,
    batch_size: int = BATCH,
) -> Measured:
    """The loss changes little between an image and points around it: less, in the mean, than it is itself.

    The loss is the margin of the logits. The points are 100 draws from a cube as wide as epsilon (under L2 as wide as
    one with the ball's radius as half a diagonal): 8/255 where epsilon is 8/255.

    Source: Pintor et al., arXiv:2106.09947 (100 draws of width 8/255, mean relative change); the limit: this project.
    """
    half = threat.epsilon / 2 if threat.norm == "Linf" else threat.epsilon / x[0].numel() ** 0.5

    def relative_change(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        here, start = margin(model, x, y), torch.zeros_like(index)
        total = torch.zeros_like(here)
        for draw in range(DRAWS):
            noise = Draws(seed, index, torch.full_like(index, draw), start).uniform(x.shape[1:], stream=8)
            total += (margin(model, (x + half * (2 * noise - 1)).clamp(0, 1), y) - here).abs()
        return total / DRAWS / here.abs().clamp_min(torch.finfo(torch.float32).tiny)

    with torch.no_grad():
        change = in_parts(relative_change, batch_size, x, y, index)
    count = int((change > 1).sum())
    words = f"on {count} of {len(x)} images it changes by more than itself (median change {float(change.median()):.2f})"
    return share_check("smooth-loss", count, len(x), 25.0, words)


def converged(
    attack: AttackSpec,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    index: Tensor,
    *,
    seed: int,
    batch_size: int = BATCH,
) -> Measured:
    """The attack had done climbing: its best loss, rescaled to [0, 1], moved by 0.05 at most over the last 10 steps.

    Of images that it does not break, since others it has no need to climb on.

    Source: Pintor et al., arXiv:2106.09947 (incomplete optimisation).
    """
    if not isinstance(attack.method, Recurrence) or attack.steps <= 2 * LAST_STEPS or attack.is_black_box:
        return unknown("converged", f"the attack is none of more than {2 * LAST_STEPS} steps by gradients")
    method = attack.method

    def last_moves(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        path: list[Tensor] = []
        broken = torch.zeros_like(y, dtype=torch.bool)

        def watch(query: Query) -> None:
            broken.logical_or_(query.logits.argmax(1) != y)
            if query.loss is not None:
                path.append(query.loss)

        oracle, draws = Oracle(model, threat, watch=watch), Draws.start(seed, index)
        run_steps(
            method,
            oracle,
            x,
            y,
            draws,
            steps=attack.steps,
            init_params=attack.init_params,
            step_params=attack.step_params,
        )
        if len(path) <= LAST_STEPS:
            return torch.stack([torch.full_like(y, torch.nan, dtype=torch.float32), broken.float()])
        best = torch.stack(path).cummax(0).values
        moved = (best[-1] - best[-1 - LAST_STEPS]) / (best[-1] - best[0]).clamp_min(torch.finfo(torch.float32).tiny)
        return torch.stack([moved, broken.float()])

    moved, broken = in_parts(last_moves, batch_size, x, y, index)
    moved = moved[broken == 0]
    if not len(moved):
        return unknown("converged", "every image is broken")
    if moved.isnan().any():
        return unknown("converged", "the attack follows no loss, or one that is not a number")
    count, n = int((moved > MOVES).sum()), len(moved)
    words = f"on {count} of {n} standing images the loss still rose by over {MOVES} in {LAST_STEPS} steps"
    return share_check("converged", count, n, 50.0, words)
