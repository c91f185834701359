"""Rotations and shifts: all of a grid, or random ones. They propose parameters, of which the judge makes images."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.losses import logit_margin
from attacks.oracle import Oracle
from attacks.several_points import AT_ONCE
from attacks.spatial import transform
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class State:
    """x (N, C, H, W) in [0, 1]; y (N,); x_adv (N, 3) parameters of `spatial.transform`; steps (N,), each of several
    queries; margin (N,) of x_adv; the images' draws."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    margin: Tensor
    draws: Draws


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
    """The image as it is, whose margin nobody asked for.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    unknown = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    return State(x, y, threat.unchanged(x), draws.step, unknown, draws)


def grid_step(oracle: Oracle, state: State, *, iterations: int, shifts: int) -> State:
    """Ask about one rotation with every shift of a grid, and keep what has the least logit margin so far.

    The rotations, one a step, and the shifts in each direction are evenly spaced from one limit to the other.

    Args:
        iterations: how many rotations there are; an `AttackSpec` fills in its own number of steps.
        shifts: how many shifts there are in each direction, so that a step asks shifts * shifts times.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Engstrom et al., arXiv:1712.02779, Section 3.2 (grid search).
    Deviations: none.
    """
    limit = oracle.threat.epsilon
    across = torch.linspace(-limit, limit, shifts, device=state.x.device) if shifts > 1 else state.x.new_zeros(1)
    right, down = (part.flatten() for part in torch.meshgrid(across, across, indexing="ij"))
    share = 2 * state.steps / max(iterations - 1, 1) - 1
    degrees = (oracle.threat.degrees * share).clamp(-oracle.threat.degrees, oracle.threat.degrees).to(state.x.dtype)
    turned = degrees[:, None].expand(-1, len(right))
    shifted = [part.expand(len(state.x), -1) for part in (right, down)]
    return _best(oracle, state, torch.stack([turned, *shifted], -1))


def random_step(oracle: Oracle, state: State, *, queries_per_step: int) -> State:
    """Ask about rotations and shifts drawn uniformly within their limits, and keep what has the least logit margin.

    Args:
        queries_per_step: how many one step asks about.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Engstrom et al., arXiv:1712.02779, Section 3.2 (worst of k).
    Deviations: the images of one step are all asked about, also where the first is misclassified.
    """
    limit = oracle.threat.epsilon
    limits = state.x.new_tensor([oracle.threat.degrees, limit, limit])
    draws = replace(state.draws, step=state.steps)
    return _best(oracle, state, (2 * draws.uniform((queries_per_step, 3)) - 1) * limits)


def _best(oracle: Oracle, state: State, proposed: Tensor) -> State:
    """The state after asking about parameters (N, P, 3)."""
    rows = torch.arange(len(state.x), device=state.x.device)
    found = []
    for part in proposed.split(max(1, AT_ONCE // len(rows)), 1):
        asked, parameters = rows.repeat_interleave(part.shape[1]), part.flatten(0, 1)
        logits = oracle.logits(transform(state.x[asked], parameters), rows=asked, proposed=parameters)
        found.append(logit_margin(logits, state.y[asked]).view(part.shape[:2]))
    margin, which = torch.cat(found, 1).min(1)
    better = margin < state.margin
    return replace(
        state,
        x_adv=torch.where(better[:, None], proposed[rows, which], state.x_adv),
        steps=state.steps + 1,
        margin=torch.where(better, margin, state.margin),
    )
