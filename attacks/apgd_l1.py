"""APGD for L1 balls: steps along the few largest entries of the gradient, in balls that shrink to the wanted one."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.l1_ball import project_l1
from attacks.losses import TARGETED_LOSSES
from attacks.oracle import Oracle
from attacks.targets import first_targets
from attacks.threat_model import ThreatModel

RADII = (3.0, 2.0, 1.0)
"""Of the balls, as multiples of epsilon."""
SHARES = (0.3, 0.3)
"""Of all moves, those in the balls before the last."""
CHECK, LESS_SPARSE, STEP_SHRINK, SMALLEST_STEP = 0.04, 1.5, 1.5, 0.1
"""Moves between two checks, as a share of a ball's; what divides the number of changed entries, and the step size; the
smallest step, as a share of the radius."""
SPARSER = 0.95
"""Below this share of the changed entries at the check before, the best point has become sparser."""


@dataclass(frozen=True)
class State:
    """One image's search.

    x, point, x_best, gradient_best: (N, C, H, W), the last three in the ball of the stage. x_adv: the point in the last
    ball, the image itself before. y, target, rank: (N,) class indices, and which of the other classes the target is.
    asked: (N,) points of this ball so far. stage: (N,) which ball. loss_best, step_size (in pixel scale), share (of the
    entries that a step changes), changed (entries, at the last check), since_check: (N,).
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    rank: Tensor
    target: Tensor
    point: Tensor
    x_best: Tensor
    gradient_best: Tensor
    asked: Tensor
    stage: Tensor
    loss_best: Tensor
    step_size: Tensor
    share: Tensor
    changed: Tensor
    since_check: Tensor


def moves_in(iterations: int) -> list[int]:
    """How many moves each ball has. Each but the last takes one more step, which asks about the point moved to."""
    moves = max(iterations - len(SHARES), 1)
    first = [min(math.ceil(share * moves), moves) for share in SHARES]
    return [*first, max(moves - sum(first), 0)]


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
    """Normal noise projected onto the largest ball; the restart is the rank of the target.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    zero, nothing = torch.zeros_like(y), torch.zeros(len(x), device=x.device)
    state = State(
        x=x,
        y=y,
        x_adv=x,
        steps=draws.step,
        rank=draws.restart,
        target=zero,
        point=x,
        x_best=x,
        gradient_best=torch.zeros_like(x),
        asked=zero,
        stage=zero,
        loss_best=nothing,
        step_size=nothing,
        share=nothing,
        changed=nothing,
        since_check=zero,
    )
    return _begin(state, x + draws.normal(x.shape[1:]), zero, threat)


def step(oracle: Oracle, state: State, *, loss: str, iterations: int) -> State:
    """Look at the loss and its gradient, decide on sparsity and step size, move.

    Args:
        loss: a name of `attacks.losses.LOSSES`; one of `TARGETED_LOSSES` aims at the class of the image's rank.
        iterations: how many steps will be taken; an `AttackSpec` fills in its own number of steps. Two of them move
            nowhere but into the next ball.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Croce and Hein, arXiv:2103.01208, Algorithm 1 and Section 3.4.
    Deviations: none.
    """
    if loss in TARGETED_LOSSES:
        target = first_targets(oracle, state.x, state.y, state.rank, state.target, state.steps)
        state = replace(state, target=target)
        label = torch.stack([state.y, target], 1)
    else:
        label = state.y
    value, gradient = oracle.loss_and_gradient(state.point, label, loss, clean=state.x)
    state, gradient = _looked(state, value, gradient, oracle.threat, iterations)

    moves = torch.tensor(moves_in(iterations), device=state.y.device)
    over = (state.asked > moves[state.stage]) & (state.stage < len(RADII) - 1)
    radius = oracle.threat.epsilon * torch.tensor(RADII, device=state.x.device)
    moved = state.point + state.step_size.view(-1, 1, 1, 1) * _sparse_direction(gradient, state.share)
    point = state.point.clone()
    for stage in range(len(RADII)):
        rows = ((state.stage == stage) & ~over).nonzero().squeeze(1)
        if len(rows):
            point[rows] = project_l1(moved[rows], state.x[rows], float(radius[stage]))
    state = replace(state, point=point, steps=state.steps + 1)
    if over.any():
        state = _begin(state, state.x_best, state.stage + 1, oracle.threat, rows=over)
    in_last = (state.stage == len(RADII) - 1).view(-1, 1, 1, 1)
    return replace(state, x_adv=torch.where(in_last, state.point, state.x))


def _begin(state: State, point: Tensor, stage: Tensor, threat: ThreatModel, *, rows: Tensor | None = None) -> State:
    """The search begun anew from a point in the ball of a stage, for some rows (N,) or all."""
    rows = torch.ones_like(state.y, dtype=torch.bool) if rows is None else rows
    projected, step_size = state.point.clone(), state.step_size.clone()
    for number, factor in enumerate(RADII):
        here = (rows & (stage == number)).nonzero().squeeze(1)
        if len(here):
            projected[here] = project_l1(point[here], state.x[here], factor * threat.epsilon)
            step_size[here] = factor * threat.epsilon
    changed = torch.where(rows, _changed(projected, state.x), state.changed)
    zero = torch.zeros_like(state.y)
    return replace(
        state,
        point=projected,
        asked=torch.where(rows, zero, state.asked),
        stage=torch.where(rows, stage, state.stage),
        step_size=step_size,
        share=torch.where(rows, changed / state.x[0].numel() / LESS_SPARSE, state.share),
        changed=changed,
        since_check=torch.where(rows, zero, state.since_check),
    )


def _looked(
    state: State, value: Tensor, gradient: Tensor, threat: ThreatModel, iterations: int
) -> tuple[State, Tensor]:
    """The state after a look at loss and gradient of the point, and the gradient to move along."""
    first = state.asked == 0
    better = first | (value > state.loss_best)
    x_best = _where(better, state.point, state.x_best)
    gradient_best = _where(better, gradient, state.gradient_best)
    since_check = state.since_check + (~first).long()

    intervals = torch.tensor([max(int(CHECK * moves), 1) for moves in moves_in(iterations)], device=value.device)
    check = since_check == intervals[state.stage]
    changed = _changed(x_best, state.x)
    sparser = check & (changed / state.changed < SPARSER)
    largest = threat.epsilon * torch.tensor(RADII, device=value.device)[state.stage]
    shrunk = torch.where(sparser, largest, state.step_size / STEP_SHRINK)
    step_size = torch.minimum(torch.maximum(shrunk, SMALLEST_STEP * largest), largest)
    looked = replace(
        state,
        point=_where(sparser, x_best, state.point),
        x_best=x_best,
        gradient_best=gradient_best,
        asked=state.asked + 1,
        loss_best=torch.where(better, value, state.loss_best),
        step_size=torch.where(check, step_size, state.step_size),
        share=torch.where(check, changed / state.x[0].numel() / LESS_SPARSE, state.share),
        changed=torch.where(check, changed, state.changed),
        since_check=torch.where(check, 0, since_check),
    )
    return looked, _where(sparser, gradient_best, gradient)


def _sparse_direction(gradient: Tensor, share: Tensor) -> Tensor:
    """(N, C, H, W) of L1 length 1: the signs of the largest entries, of which there are this share."""
    size = gradient.abs().flatten(1)
    entries = size.shape[1]
    place = ((1 - share) * entries).clamp(0, entries - 1).long()[:, None]
    least = size.sort(1).values.gather(1, place).view(-1, 1, 1, 1)
    signs = torch.where(gradient.abs() >= least, gradient.sign(), 0.0)
    return signs / (signs.abs().flatten(1).sum(1).view(-1, 1, 1, 1) + 1e-10)


def _changed(point: Tensor, x: Tensor) -> Tensor:
    """(N,) float32: how many entries differ."""
    return (point != x).flatten(1).sum(1).float()


def _where(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(condition.view(-1, 1, 1, 1), first, second)
