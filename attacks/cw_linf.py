"""Carlini and Wagner's Linf attack: a penalty on what exceeds tau, a tau that shrinks, a constant that doubles."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel

DECAYS = (0.9, 0.999)
"""Of Adam's two moments."""
KAPPA = 50.0
"""What the loss `margin` adds to the logit margin, below which a point is misclassified."""
EDGE = 1e-6
"""How far from black and white an image's pixels begin, whose place on the tangent's scale is infinite."""


@dataclass(frozen=True)
class State:
    """One image's search.

    x, x_adv (N, C, H, W) in [0, 1]. y, steps (N,). place, start, first_moment, second_moment: (N, C, H, W), where the
    search is on the scale of the inverse hyperbolic tangent, where it began under this tau, and Adam's moments. tau,
    const: (N,) the allowed change of a pixel and the weight of the margin. tries: (N,) Adam's steps since either
    changed.
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    place: Tensor
    start: Tensor
    first_moment: Tensor
    second_moment: Tensor
    tau: Tensor
    const: Tensor
    tries: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, initial_const: float) -> State:  # noqa: ARG001
    """The image itself.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
        initial_const: the first weight of the margin.
    """
    place = torch.atanh((2 * x - 1).clamp(-1 + EDGE, 1 - EDGE))
    zero, one = torch.zeros_like(x), torch.ones(len(x), dtype=x.dtype, device=x.device)
    return State(x, y, x, draws.step, place, place, zero, zero, one, initial_const * one, torch.zeros_like(y))


def step(
    oracle: Oracle, state: State, *, initial_const: float, largest_const: float, rate: float, tries: int, shrink: float
) -> State:
    """One step of Adam, or a smaller tau where the point succeeds, or a larger constant where it long did not.

    Args:
        initial_const: as for init; largest_const: where doubling would exceed it the constant begins anew at
            `initial_const`, under the same tau.
        rate: Adam's.
        tries: the steps without success, since tau or the constant changed, after which the constant doubles.
        shrink: what tau is multiplied by, from the largest change of the point that succeeded.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Carlini and Wagner, arXiv:1608.04644, Section VI-C.
    Deviations: the attack is untargeted, as the table of arXiv:1905.13736 has it. A point succeeds under tau as soon
        as it is misclassified and no pixel changed by more; the authors stop when the whole loss is near 0. They end
        beyond the largest constant, and where tau is below 1/256; here the search goes on until its steps are spent.
    """
    point = _image(state.place)
    loss, uphill = oracle.loss_and_gradient(point, state.y, "margin")
    is_wrong = loss > -KAPPA
    delta = point - state.x
    largest = delta.abs().flatten(1).amax(1)
    succeeds = is_wrong & (largest <= state.tau)
    gives_up = ~succeeds & (state.tries + 1 >= tries)

    weight = torch.where(is_wrong, 0.0, state.const).view(-1, 1, 1, 1)
    beyond = delta.abs() > state.tau.view(-1, 1, 1, 1)
    gradient = (torch.where(beyond, delta.sign(), 0.0) - weight * uphill) * 2 * point * (1 - point)
    first = DECAYS[0] * state.first_moment + (1 - DECAYS[0]) * gradient
    second = DECAYS[1] * state.second_moment + (1 - DECAYS[1]) * gradient**2
    count = (state.tries + 1).view(-1, 1, 1, 1)
    direction = (first / (1 - DECAYS[0] ** count)) / ((second / (1 - DECAYS[1] ** count)).sqrt() + 1e-8)

    anew = succeeds | gives_up
    start = _where(succeeds, state.place, state.start)
    doubled = torch.where(state.const * 2 > largest_const, initial_const, state.const * 2)
    place = _where(anew, start, state.place - rate * direction)
    return replace(
        state,
        x_adv=oracle.threat.project(_image(place), state.x),
        steps=state.steps + 1,
        place=place,
        start=start,
        first_moment=_where(anew, torch.zeros_like(first), first),
        second_moment=_where(anew, torch.zeros_like(second), second),
        tau=torch.where(succeeds, shrink * largest, state.tau),
        const=torch.where(gives_up, doubled, state.const),
        tries=torch.where(anew, 0, state.tries + 1),
    )


def _image(place: Tensor) -> Tensor:
    return (place.tanh() + 1) / 2


def _where(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.where(condition.view(-1, 1, 1, 1), first, second)
