"""Auto-PGD: PGD with momentum whose step size halves when progress stalls, free of a step size to choose."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.losses import TARGETED_LOSSES
from attacks.oracle import Oracle
from attacks.targets import first_targets
from attacks.threat_model import ThreatModel

FIRST_INTERVAL, SHRINK, SHORTEST_INTERVAL = 0.22, 0.03, 0.06
"""Between checks of the step size, as shares of all iterations."""


@dataclass(frozen=True)
class State:
    """One image's search.

    x, x_adv, x_previous, x_best, gradient_best: (N, C, H, W). y, target: (N,) class indices. rank: (N,) which of the
    other classes the target is, 0 for the likeliest. loss_*: (N,), the last one, the best, the best at the last check.
    step_size: (N,) in pixel scale. interval, since_check, improvements: (N,) steps. reduced: (N,), at the last check.
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    rank: Tensor
    target: Tensor
    x_previous: Tensor
    x_best: Tensor
    gradient_best: Tensor
    loss_previous: Tensor
    loss_best: Tensor
    loss_at_check: Tensor
    step_size: Tensor
    interval: Tensor
    since_check: Tensor
    improvements: Tensor
    reduced: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, iterations: int) -> State:
    """A random point scaled onto the sphere of radius epsilon; the restart is the rank of the target.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
        iterations: how many steps will be taken; an `AttackSpec` fills in its own number of steps.
    """
    x_adv = threat.on_sphere(x, draws)
    worst = torch.full((len(x),), -torch.inf, device=x.device)
    zero = torch.zeros_like(y)
    return State(
        x=x,
        y=y,
        x_adv=x_adv,
        steps=draws.step,
        rank=draws.restart,
        target=zero,
        x_previous=x_adv,
        x_best=x_adv,
        gradient_best=torch.zeros_like(x),
        loss_previous=worst,
        loss_best=worst,
        loss_at_check=worst,
        step_size=torch.full_like(worst, 2 * threat.epsilon),
        interval=torch.full_like(zero, max(int(FIRST_INTERVAL * iterations), 1)),
        since_check=zero,
        improvements=zero,
        reduced=torch.ones_like(y, dtype=torch.bool),
    )


def step(oracle: Oracle, state: State, *, loss: str, iterations: int, rho: float, momentum: float) -> State:
    """Look at the loss and its gradient, decide on the step size, move.

    Args:
        loss: a name of `attacks.losses.LOSSES`, or a distance of features; one of `TARGETED_LOSSES` aims at the class
            of the image's rank.
        iterations: as for init.
        rho: the share of steps between two checks that must have raised the loss.
        momentum: weight of the new direction; the rest goes to the last move.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Croce and Hein, arXiv:2003.01690, Algorithm 1 and Section 3.
    Deviations: none from the paper; the authors' code compares the loss after the first step with zero, not with that
        of the start. The point after the last step is proposed without its gradient being taken.
    """
    threat = oracle.threat
    if loss in TARGETED_LOSSES:
        target = first_targets(oracle, state.x, state.y, state.rank, state.target, state.steps)
        state = replace(state, target=target)
        label = torch.stack([state.y, target], 1)
    else:
        label = state.y
    value, gradient = oracle.loss_and_gradient(state.x_adv, label, loss, clean=state.x)

    first = state.steps == 0
    better = value > state.loss_best
    x_best = _where(better, state.x_adv, state.x_best)
    gradient_best = _where(better, gradient, state.gradient_best)
    loss_best = torch.maximum(value, state.loss_best)
    improvements = state.improvements + (~first & (value > state.loss_previous)).long()
    since_check = state.since_check + (~first).long()

    check = since_check == state.interval
    oscillates = improvements <= rho * state.interval
    stuck = ~state.reduced & (state.loss_at_check >= loss_best)
    halve = check & (oscillates | stuck)
    step_size = torch.where(halve, state.step_size / 2, state.step_size)
    here = _where(halve, x_best, state.x_adv)
    uphill = threat.direction(_where(halve, gradient_best, gradient))

    shortest, shrink = max(int(SHORTEST_INTERVAL * iterations), 1), max(int(SHRINK * iterations), 1)
    ascended = threat.project(here + step_size.view(-1, 1, 1, 1) * uphill, state.x)
    weight = torch.where(first, 1.0, momentum).view(-1, 1, 1, 1)
    moved = here + weight * (ascended - here) + (1 - weight) * (here - state.x_previous)
    return replace(
        state,
        x_adv=threat.project(moved, state.x),
        steps=state.steps + 1,
        x_previous=here,
        x_best=x_best,
        gradient_best=gradient_best,
        loss_previous=value,
        loss_best=loss_best,
        loss_at_check=torch.where(check, loss_best, state.loss_at_check),
        step_size=step_size,
        interval=torch.where(check, (state.interval - shrink).clamp_min(shortest), state.interval),
        since_check=torch.where(check, 0, since_check),
        improvements=torch.where(check, 0, improvements),
        reduced=torch.where(check, halve, state.reduced),
    )


def _where(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(condition.view(-1, 1, 1, 1), first, second)
