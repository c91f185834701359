"""Projected gradient descent: the attack of nearly every robustness table, and the inner loop of most trainers."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class State:
    """x, x_adv (N, C, H, W) in [0, 1]; y per-image labels; steps (N,) taken so far."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, start: str) -> State:
    """The state before the first step.

    Args:
        x: (N, C, H, W) in [0, 1], not modified.
        y: (N,) class indices, or what the loss of `step` understands.
        start: "none" (the image itself), "uniform" (in the ball) or "gaussian" (x + 0.001 n, as TRADES trains).

    Raises: InputError for another start.
    """
    if start == "none":
        x_adv = x
    elif start == "uniform":
        x_adv = threat.random_start(x, draws)
    elif start == "gaussian":
        x_adv = threat.project(x + 0.001 * draws.normal(x.shape[1:]), x)
    else:
        raise InputError(f"start must be none, uniform or gaussian, got {start!r}")
    return State(x, y, x_adv, draws.step)


def step(oracle: Oracle, state: State, *, loss: str, rel_step_size: float) -> State:
    """One step of steepest ascent on a loss, projected.

    Args:
        loss: a name of `attacks.losses.LOSSES`, or a distance of features.
        rel_step_size: step as a fraction of the threat model's epsilon.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Madry et al., arXiv:1706.06083, Section 2.1.
    Deviations: none.
    """
    _, gradient = oracle.loss_and_gradient(state.x_adv, state.y, loss, clean=state.x, valued=False)
    x_adv = ascend(oracle.threat, state.x_adv, state.x, gradient, rel_step_size)
    return replace(state, x_adv=x_adv, steps=state.steps + 1)


def ascend(threat: ThreatModel, x_adv: Tensor, x: Tensor, gradient: Tensor, rel_step_size: float) -> Tensor:
    """(N, C, H, W) the points a step up the gradient from x_adv, projected onto the threat model around x.

    Args:
        x_adv, x, gradient: (N, C, H, W); x_adv and x in [0, 1].
        rel_step_size: step as a fraction of epsilon.
    """
    if threat.norm == "Linf":  # a step is +-alpha in every pixel, whose product with a sign is exact
        return threat.project(torch.add(x_adv, threat.direction(gradient), alpha=rel_step_size * threat.epsilon), x)
    return threat.project(x_adv + rel_step_size * threat.epsilon * threat.direction(gradient), x)
