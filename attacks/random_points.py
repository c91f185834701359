"""Random points of the ball: the search that any attack must be better than."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.several_points import margins
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class State:
    """x, x_adv (N, C, H, W) in [0, 1]; y (N,); steps (N,), each of several queries; margin (N,) of x_adv; the images'
    draws."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    margin: Tensor
    draws: Draws


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001
    """The image itself, whose margin nobody asked for.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    unknown = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    return State(x, y, x, draws.step, unknown, draws)


def step(oracle: Oracle, state: State, *, queries_per_step: int) -> State:
    """Ask about points drawn uniformly from the ball, and keep the one with the least logit margin so far.

    Args:
        queries_per_step: how many points one step asks about.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Carlini et al., arXiv:1902.06705.
    Deviations: none.
    """
    count = state.steps[:, None] * queries_per_step + torch.arange(queries_per_step, device=state.steps.device)
    image = torch.arange(len(count), device=count.device).repeat_interleave(queries_per_step)
    index, restart = state.draws.index[image], state.draws.restart[image]
    draws = Draws(state.draws.seed, index, restart, count.flatten())
    points = oracle.threat.random_start(state.x[image], draws).view(len(count), queries_per_step, *state.x.shape[1:])
    found = margins(oracle, points, state.y)
    margin, which = found.min(1)
    best = points[torch.arange(len(which), device=which.device), which]
    better = margin < state.margin
    x_adv = torch.where(better.view(-1, 1, 1, 1), best, state.x_adv)
    margin = torch.where(better, margin, state.margin)
    return replace(state, x_adv=x_adv, steps=state.steps + 1, margin=margin)
