"""Auto-PGD: PGD with momentum whose step size halves when progress stalls, free of a step size to choose."""

import functools
from collections.abc import Mapping
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
    step_size: (N,) in pixel scale. improvements: (N,) steps since the last check. reduced: (N,), at the last check.
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
    improvements: Tensor
    reduced: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
    """A random point scaled onto the sphere of radius epsilon; the restart is the rank of the target.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
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
        improvements=zero,
        reduced=torch.ones_like(y, dtype=torch.bool),
    )


def step(oracle: Oracle, state: State, *, loss: str, iterations: int, rho: float, momentum: float) -> State:
    """Look at the loss and its gradient, decide on the step size, move.

    Args:
        loss: a name of `attacks.losses.LOSSES`, or a distance of features; one of `TARGETED_LOSSES` aims at the class
            of the image's rank.
        iterations: how many steps will be taken; an `AttackSpec` fills in its own number of steps.
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
    taken = oracle.counts_of(state.steps)

    better = value > state.loss_best
    x_best = _where(better, state.x_adv, state.x_best)
    gradient_best = _where(better, gradient, state.gradient_best)
    loss_best = torch.maximum(value, state.loss_best)
    improved = value > state.loss_previous
    if 0 in taken:  # there is no loss before the first
        improved &= state.steps > 0
    improvements = state.improvements + improved
    here, uphill, step_size = state.x_adv, gradient, state.step_size
    loss_at_check, reduced = state.loss_at_check, state.reduced

    checks = {count: interval for count, interval in checks_of(iterations).items() if count in taken}
    if checks:
        interval = torch.zeros_like(state.steps)
        for count, length in checks.items():
            interval.masked_fill_(state.steps == count, length)
        check = interval > 0
        oscillates = improvements <= rho * interval
        stuck = ~reduced & (loss_at_check >= loss_best)
        halve = check & (oscillates | stuck)
        step_size = torch.where(halve, step_size / 2, step_size)
        here, uphill = _where(halve, x_best, here), _where(halve, gradient_best, uphill)
        loss_at_check = torch.where(check, loss_best, loss_at_check)
        improvements = torch.where(check, 0, improvements)
        reduced = torch.where(check, halve, reduced)

    ascended = _ascended(threat, here, step_size.view(-1, 1, 1, 1), threat.direction(uphill), state.x)
    weight: Tensor | float = _rounded(momentum)
    if 0 in taken:
        weight = torch.where(state.steps == 0, 1.0, momentum).view(-1, 1, 1, 1)
    moved = ascended.sub_(here).mul_(weight).add_(here)
    moved.add_((here - state.x_previous).mul_(1 - weight))
    return replace(
        state,
        x_adv=threat.project(moved, state.x),
        steps=state.steps + 1,
        x_previous=here,
        x_best=x_best,
        gradient_best=gradient_best,
        loss_previous=value,
        loss_best=loss_best,
        loss_at_check=loss_at_check,
        step_size=step_size,
        improvements=improvements,
        reduced=reduced,
    )


def _ascended(threat: ThreatModel, here: Tensor, step_size: Tensor, uphill: Tensor, x: Tensor) -> Tensor:
    """(N, C, H, W) new points: a step of (N, 1, 1, 1) from `here`, projected."""
    if threat.norm == "Linf":  # the product with a sign is exact, so that both are rounded once
        return threat.project(torch.addcmul(here, step_size, uphill), x)
    return threat.project(here + step_size * uphill, x)


@functools.cache
def _rounded(number: float) -> float:
    """The number as float32 has it, as images are."""
    return float(torch.tensor(number, dtype=torch.float32))


@functools.cache
def checks_of(iterations: int) -> Mapping[int, int]:
    """After how many steps the step size is checked, and how many steps each check looks back on."""
    checks = {}
    interval, last = max(int(FIRST_INTERVAL * iterations), 1), 0
    while last + interval < iterations:
        last += interval
        checks[last] = interval
        interval = max(interval - max(int(SHRINK * iterations), 1), max(int(SHORTEST_INTERVAL * iterations), 1))
    return checks


def _where(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(condition.view(-1, 1, 1, 1), first, second)
