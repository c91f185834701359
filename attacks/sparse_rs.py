"""Sparse-RS: random search over which few pixels are changed, and to which corners of the colour cube."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.several_points import margins
from attacks.threat_model import ThreatModel

MILESTONES = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""In ten thousandths of all queries: after which the share of exchanged pixels falls."""
DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)
"""What that share is divided by before the first, between two, and after the last of them."""


@dataclass(frozen=True)
class State:
    """x, x_adv (N, C, H, W) in [0, 1]; y, steps (N,), each of several queries; margin (N,) of x_adv; chosen (N, H * W)
    bool, which pixels are changed; the images' draws."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    margin: Tensor
    chosen: Tensor
    draws: Draws


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:
    """So many random pixels as may change, each at a random corner; their margin is unknown.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    pixels = x[0, 0].numel()
    count = min(int(threat.epsilon), pixels)
    order = draws.uniform((pixels,)).argsort(1)
    chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :count], value=True)
    x_adv = torch.where(_as_image(chosen, x), _corners(draws, x.shape[1:]).to(x.dtype), x)
    unknown = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    return State(x, y, x_adv, draws.step, unknown, chosen, draws)


def step(oracle: Oracle, state: State, *, iterations: int, queries_per_step: int, alpha_init: float) -> State:
    """Exchange a few of the changed pixels for others, one query after the other, and keep what is better.

    Where all pixels may change, the few get other colours.

    Args:
        iterations: how many steps will be taken; an `AttackSpec` fills in its own number of steps.
        queries_per_step: how many exchanges one step asks about.
        alpha_init: the share of the changed pixels that the first exchanges are of.

    Returns: the next state; its x_adv lies inside the threat model.
    Source: Croce et al., arXiv:2006.12834, Section 3 (L0, untargeted), with the schedule of alpha of the authors' code.
    Deviations: none.
    """
    draws = replace(state.draws, step=1 + state.steps)
    keys = draws.uniform((queries_per_step, state.chosen.shape[1]))
    corners = _corners(draws, (queries_per_step, *state.x.shape[1:])).to(state.x.dtype)
    for query in range(queries_per_step):
        number = state.steps * queries_per_step + query
        swaps = _swaps(state, number, iterations * queries_per_step, alpha_init)
        chosen, x_adv = _exchanged(state, keys[:, query], corners[:, query], swaps)
        first = number == 0  # what an image starts from is asked about
        chosen = torch.where(first[:, None], state.chosen, chosen)
        x_adv = torch.where(first.view(-1, 1, 1, 1), state.x_adv, x_adv)
        margin = margins(oracle, x_adv[:, None], state.y).squeeze(1)
        better = first | (margin < state.margin)
        state = replace(
            state,
            x_adv=torch.where(better.view(-1, 1, 1, 1), x_adv, state.x_adv),
            margin=torch.where(better, margin, state.margin),
            chosen=torch.where(better[:, None], chosen, state.chosen),
        )
    return replace(state, steps=state.steps + 1)


def _swaps(state: State, number: Tensor, queries: int, alpha_init: float) -> Tensor:
    """(N, 1) how many pixels are exchanged in the query of that number."""
    count = state.chosen[0].sum()
    free = state.chosen.shape[1] - count
    milestones = torch.tensor(MILESTONES, device=number.device)
    passed = (number[:, None] * 10_000 // queries > milestones).sum(1)
    share = alpha_init / torch.tensor(DIVISORS, device=number.device, dtype=state.x.dtype)[passed]
    most = torch.where(free > 0, torch.minimum(count, free), count)
    return (share * count).long().clamp_min(1).clamp_max(most)[:, None]


def _exchanged(state: State, keys: Tensor, corners: Tensor, swaps: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels are changed after an exchange of those of the smallest keys, and the image: new ones are at corners.

    Args:
        keys: (N, H * W) random; corners: (N, C, H, W) random; swaps: (N, 1).
    """
    leaving = _first(keys.masked_fill(~state.chosen, torch.inf), swaps)
    is_whole = state.chosen.all(1, keepdim=True)
    coming = torch.where(is_whole, leaving, _first(keys.masked_fill(state.chosen, torch.inf), swaps))
    chosen = (state.chosen & ~leaving) | coming
    x_adv = torch.where(_as_image(leaving, state.x), state.x, state.x_adv)
    return chosen, torch.where(_as_image(coming, state.x), corners, x_adv)


def _first(keys: Tensor, count: Tensor) -> Tensor:
    """(N, P) bool: the `count` (N, 1) smallest keys of each row (N, P)."""
    return keys.argsort(1).argsort(1) < count


def _corners(draws: Draws, shape: Sequence[int]) -> Tensor:
    """(N, *shape) of zeros and ones."""
    return (draws.uniform(shape, stream=1) < 0.5).float()


def _as_image(pixels: Tensor, x: Tensor) -> Tensor:
    """(N, 1, H, W) of (N, H * W)."""
    return pixels.view(len(x), 1, *x.shape[2:])
