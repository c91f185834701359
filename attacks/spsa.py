"""SPSA: gradients estimated from logits alone, by differences along random sign vectors."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.scale import unit
from attacks.several_points import gradient_by_pairs
from attacks.threat_model import ThreatModel

DECAYS = (0.9, 0.999)
"""Of Adam's two moments."""


@dataclass(frozen=True)
class State:
    """x, x_adv (N, C, H, W) in [0, 1]; y, steps (N,); Adam's moments, shaped as x; the images' draws."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    first_moment: Tensor
    second_moment: Tensor
    draws: Draws


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001
    """The image itself.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    zero = torch.zeros_like(x)
    return State(x, y, x, draws.step, zero, zero, draws)


def step(oracle: Oracle, state: State, *, queries_per_step: int, width: float, rel_step_size: float) -> State:
    """Estimate the gradient of the logit margin, let Adam descend, project, and ask about the new point.

    Args:
        queries_per_step: the most that a step asks: one query is about the new point, and two each about as many sign
            vectors as fit beside it.
        width: half the distance of the two points of a pair, in each pixel.
        rel_step_size: Adam's learning rate as a fraction of the threat model's epsilon.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Uesato et al., arXiv:1802.05666 (two-sided differences, margin loss, Adam).
    Deviations: a query of the new point, without which nobody learns that it is misclassified; the points of a pair are
        clipped to [0, 1], where a classifier is defined; under L2 Adam's step is scaled to the length of one step.
    """
    threat = oracle.threat
    draws = replace(state.draws, step=state.steps)
    signs = torch.where(draws.uniform(((queries_per_step - 1) // 2, *state.x.shape[1:])) < 0.5, -1.0, 1.0)
    gradient = gradient_by_pairs(oracle, state.x_adv, state.y, signs, width)
    first = DECAYS[0] * state.first_moment + (1 - DECAYS[0]) * gradient
    second = DECAYS[1] * state.second_moment + (1 - DECAYS[1]) * gradient**2
    count = (state.steps + 1).view(-1, 1, 1, 1)
    direction = (first / (1 - DECAYS[0] ** count)) / ((second / (1 - DECAYS[1] ** count)).sqrt() + 1e-8)
    if threat.norm == "L2":
        direction = unit(direction)
    x_adv = threat.project(state.x_adv - rel_step_size * threat.epsilon * direction, state.x)
    oracle.logits(x_adv)  # the watch learns of it, and nobody else: the points of a pair may all lie outside
    return replace(state, x_adv=x_adv, steps=state.steps + 1, first_moment=first, second_moment=second)
