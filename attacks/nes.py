"""NES: gradients estimated from logits alone, by differences along Gaussian vectors, followed by their signs."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.scale import unit
from attacks.several_points import gradient_by_pairs
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class State:
    """x, x_adv (N, C, H, W) in [0, 1]; y, steps (N,); the mean of past estimates, shaped as x; the images' draws."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    mean: Tensor
    draws: Draws


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001
    """The image itself.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    return State(x, y, x, draws.step, torch.zeros_like(x), draws)


def step(
    oracle: Oracle, state: State, *, queries_per_step: int, width: float, rel_step_size: float, momentum: float
) -> State:
    """Estimate the gradient of the logit margin, step against the mean of the estimates, ask about the new point.

    Args:
        queries_per_step: the most that a step asks: one query is about the new point, and two each about as many
            Gaussian vectors as fit beside it.
        width: the standard deviation of the two points of a pair, in each pixel.
        rel_step_size: length of a step as a fraction of the threat model's epsilon.
        momentum: share of the mean that is kept at each step.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Ilyas et al., arXiv:1804.08598, Section 2.1 (antithetic Gaussian sampling, projected signed steps); the
        momentum is that of the authors' program.
    Deviations: the logit margin, whose estimate does not vanish where the network is sure, in place of the
        cross-entropy; a query of the new point; the points of a pair are clipped to [0, 1]; under L2 a step of that
        length in place of signs.
    """
    draws = replace(state.draws, step=state.steps)
    vectors = draws.normal(((queries_per_step - 1) // 2, *state.x.shape[1:]))
    estimate = gradient_by_pairs(oracle, state.x_adv, state.y, vectors, width)
    mean = momentum * state.mean + (1 - momentum) * estimate
    direction = unit(mean) if oracle.threat.norm == "L2" else mean.sign()
    x_adv = oracle.threat.project(state.x_adv - rel_step_size * oracle.threat.epsilon * direction, state.x)
    oracle.logits(x_adv)  # the watch learns of it, and nobody else: the points of a pair may all lie outside
    return replace(state, x_adv=x_adv, steps=state.steps + 1, mean=mean)
