"""Momentum iterative FGSM and what makes its examples transfer better: lookahead, transformed queries, smoothing.

One attack with options, as the papers of the family present them: each is a term of one step, and they combine.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.oracle import Oracle
from attacks.pgd import ascend
from attacks.scale import unit
from attacks.threat_model import ThreatModel
from attacks.transfer_terms import diverse_gradient, smoothed


@dataclass(frozen=True)
class State:
    """x, x_adv, velocity, variance (N, C, H, W); y (N,) class indices; steps (N,) taken so far; the images' draws."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    velocity: Tensor
    variance: Tensor
    draws: Draws


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001 (every init has these four)
    """The images x (N, C, H, W) themselves, at rest; y: (N,) class indices."""
    rest = torch.zeros_like(x)
    return State(x, y, x, draws.step, rest, rest, draws)


def step(
    oracle: Oracle,
    state: State,
    *,
    rel_step_size: float,
    momentum: float,
    nesterov: bool = False,
    diversity: float = 0.0,
    kernel: int = 0,
    variance_points: int = 0,
    variance_reach: float = 1.5,
) -> State:
    """One step of momentum iterative FGSM: ascend along an accumulated L1-normalised gradient.

    Args:
        state: x, x_adv (N, C, H, W) in [0, 1]; velocity, same shape; not modified.
        rel_step_size: step as a fraction of the threat model's epsilon.
        momentum: the decay factor mu of the velocity.
        nesterov: the gradient is taken where the velocity leads (NI-FGSM); under Linf alone.
        diversity: the probability that an image is shrunk and moved at random in a query (DI-FGSM).
        kernel: side of the Gaussian kernel that smooths the gradient (TI-FGSM), odd; 0 for none.
        variance_points: how many points around x_adv tell what is missing in its gradient (VMI-FGSM); 0 for none.
            Under Linf alone.
        variance_reach: their distance in each pixel, at most, as a multiple of epsilon.

    Returns: the next state; its x_adv lies inside the threat model, while queries of `nesterov` and `variance_points`
        may lie outside of the ball.
    Raises: InputError for an even kernel, and for `nesterov` or `variance_points` in another norm than Linf, whose
        scale both have.
    Source: Dong et al., arXiv:1710.06081, Algorithm 1 (Linf) and Equation 8 (L2); nesterov: Lin et al.,
        arXiv:1908.06281, Equations 6 to 8; diversity: Xie et al., arXiv:1803.06978, Equation 4; kernel: Dong et al.,
        arXiv:1904.02884, Equation 7; variance: Wang and He, arXiv:2103.15571, Algorithm 1.
    Deviations: the lookahead takes the gradient divided by its mean magnitude, as programs of the field do; divided
        by its sum, as Equation 6 has it, it is too small to lead anywhere. Queries are clipped to [0, 1], where a
        classifier is defined.
    """
    threat = oracle.threat
    draws = replace(state.draws, step=state.steps)

    if kernel < 0 or (kernel and kernel % 2 == 0):
        raise InputError(f"kernel must be an odd number of pixels, or 0 for none, got {kernel}")
    if threat.norm != "Linf" and (nesterov or variance_points):
        raise InputError(f"nesterov and variance_points are defined for Linf, got {threat.norm}; leave them out there")

    def gradient_at(points: Tensor, stream: int) -> Tensor:
        points = points.clamp(0.0, 1.0)
        if diversity:
            return diverse_gradient(oracle, points, state.y, draws, probability=diversity, stream=stream)
        return oracle.loss_and_gradient(points, state.y, "cross-entropy", valued=False)[1]

    centre = state.x_adv
    if nesterov:
        pixels = state.x[0].numel()
        centre = centre + rel_step_size * threat.epsilon * momentum * pixels * state.velocity
    gradient = gradient_at(centre, 0)
    whole = gradient + state.variance
    if kernel:
        whole = smoothed(whole, kernel)
    velocity = momentum * state.velocity + unit(whole, order=1)
    variance = state.variance
    if variance_points:
        variance = -gradient
        for point in range(variance_points):
            offset = 2 * draws.uniform(state.x.shape[1:], stream=1 + 2 * point) - 1
            around = gradient_at(centre + variance_reach * threat.epsilon * offset, 2 + 2 * point)
            variance = variance + around / variance_points
    x_adv = ascend(threat, state.x_adv, state.x, velocity, rel_step_size)
    return replace(state, x_adv=x_adv, steps=state.steps + 1, velocity=velocity, variance=variance)
