"""The inner attack, watched image by image: which iterates are classified correctly, and where an image stops."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks import pgd
from attacks.loop import take
from attacks.oracle import Oracle, Query
from model_zoo.defenses.context import TrainingContext, under_attack


@dataclass(frozen=True)
class Iterates:
    """The images that still move, before their next step.

    Args:
        step: how many steps they have taken.
        rows: (M,) their places in the batch.
        x, x_adv, gradient: (M, C, H, W); the gradient is that of the inner loss at x_adv.
        correct: (M,) bool, whether x_adv is classified correctly.
        mistakes: (M,) how many iterates before this one were not.
    """

    step: int
    rows: Tensor
    x: Tensor
    x_adv: Tensor
    gradient: Tensor
    correct: Tensor
    mistakes: Tensor


Stop = Callable[[Iterates], Tensor]
"""(M,) bool: the images that stay where they are, for good."""


@dataclass(frozen=True)
class Found:
    """x_adv (N, C, H, W) in the threat model; correct (N,), how many of the points that were left are correct."""

    x_adv: Tensor
    correct: Tensor


def search(
    ctx: TrainingContext,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: str,
    start: str,
    stop: Stop | None = None,
    rel_step_size: float | None = None,
    keeps_mode: bool = False,
) -> Found:
    """What `ctx.craft` does, with images that may stop early, and a count of their correct iterates.

    Images that have stopped leave the batch, so they cost no more passes.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices, by which iterates are correct whatever the loss.
        loss, start, rel_step_size: as of `ctx.craft`.
        stop: decides before every step, from what the step finds out anyway; None for no image, ever.
        keeps_mode: the model is attacked in the mode that it is in, not in eval mode.
    """
    answers: deque[Query] = deque(maxlen=1)
    oracle = _Recorder(model, ctx.threat, precision=ctx.precision, watch=answers.append)
    step_size = ctx.rel_step_size if rel_step_size is None else rel_step_size
    with under_attack(model, keeps_mode=keeps_mode):
        label = F.log_softmax(oracle.logits(x), 1) if loss == "kl-divergence" else y
        state = pgd.init(x, label, ctx.threat, ctx.draws, start=start)
        rows = torch.arange(len(y), device=x.device)
        x_adv, correct, mistakes = state.x_adv.clone(), torch.zeros_like(rows), torch.zeros_like(rows)
        for step in range(ctx.steps):
            after = pgd.step(oracle, state, loss=loss, rel_step_size=step_size)
            right = answers[-1].logits.argmax(1) == y[rows]
            moves = torch.ones_like(right)
            if stop is not None:
                now = Iterates(step, rows, state.x, state.x_adv, oracle.gradient, right, mistakes[rows])
                moves = ~stop(now)
            rows, right, state = rows[moves], right[moves], after if moves.all() else take(after, moves)
            correct[rows] += right
            mistakes[rows] += ~right
            x_adv[rows] = state.x_adv
            if not len(rows):
                break
    return Found(x_adv, correct)


class _Recorder(Oracle):
    """An oracle that remembers the last gradient."""

    gradient: Tensor

    def loss_and_gradient(self, *asked: Any, **options: Any) -> tuple[Tensor, Tensor]:
        value, self.gradient = super().loss_and_gradient(*asked, **options)
        return value, self.gradient
