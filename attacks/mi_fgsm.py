"""Momentum iterative FGSM: PGD on an accumulated gradient, for examples that transfer."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.pgd import ascend
from attacks.scale import unit
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class State:
    """x, x_adv, velocity (N, C, H, W); y (N,) class indices; steps (N,) taken so far."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    velocity: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001 (every init has these four)
    """The images x (N, C, H, W) themselves, at rest; y: (N,) class indices."""
    return State(x, y, x, draws.step, torch.zeros_like(x))


def step(oracle: Oracle, state: State, *, rel_step_size: float, momentum: float) -> State:
    """One step of momentum iterative FGSM: ascend along an accumulated L1-normalised gradient.

    Args:
        state: x, x_adv (N, C, H, W) in [0, 1]; velocity, same shape; not modified.
        rel_step_size: step as a fraction of the threat model's epsilon.
        momentum: the decay factor mu of the velocity.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Dong et al., arXiv:1710.06081, Algorithm 1 (Linf) and Equation 8 (L2).
    Deviations: none.
    """
    threat = oracle.threat
    _, gradient = oracle.loss_and_gradient(state.x_adv, state.y, "cross-entropy")
    velocity = momentum * state.velocity + unit(gradient, order=1)
    x_adv = ascend(threat, state.x_adv, state.x, velocity, rel_step_size)
    return replace(state, x_adv=x_adv, steps=state.steps + 1, velocity=velocity)
