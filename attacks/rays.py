"""RayS: the nearest misclassified point along sign vectors, found by labels alone."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class State:
    """One query of each image is a step; what is asked next follows from this.

    x, x_adv, direction (N, C, H, W), the last of -1 and 1; y, steps (N,); radius (N,), the least at which the direction
    is known to be misclassified, 1 before; stage, block (N,), which part of the direction the candidate flips (none
    where block is -1); bisects (N,), whether the candidate's radius is being searched, between low and high (N,).
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    direction: Tensor
    radius: Tensor
    stage: Tensor
    block: Tensor
    bisects: Tensor
    low: Tensor
    high: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001 (every init has these four)
    """The direction in which all pixels grow.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
    """
    zero = torch.zeros_like(draws.step)
    whole = torch.ones(len(x), dtype=x.dtype, device=x.device)
    ones = torch.ones_like(x)
    return State(x, y, x, draws.step, ones, whole, zero, zero - 1, zero.bool(), 0 * whole, whole)


def step(oracle: Oracle, state: State, *, tolerance: float) -> State:
    """Ask for the label of one point: is the candidate misclassified at the radius, and, if it is, from where on.

    Args:
        tolerance: of a radius, in pixel scale.

    Returns: the next state, whose queries may lie outside of the threat model; its x_adv is the misclassified point at
        the radius where that is inside, and else x: what nobody asked about is no success by labels.
    Source: Chen and Gu, arXiv:2006.12792, Algorithms 1 to 3.
    Deviations: a direction that no radius up to 1 is known for is tried at 1; after blocks of one pixel the whole is
        flipped again, and so on.
    """
    candidate, is_last_block, is_last_stage = _candidate(state)
    radius = torch.where(state.bisects, (state.low + state.high) / 2, state.radius)
    point = (state.x + radius.view(-1, 1, 1, 1) * candidate).clamp(0.0, 1.0)
    wrong = oracle.logits(point).argmax(1) != state.y

    begins = ~state.bisects & wrong
    low = torch.where(begins, 0.0, torch.where(state.bisects & ~wrong, radius, state.low))
    high = torch.where(wrong, radius, state.high)
    found = (begins | state.bisects) & (high - low <= tolerance)
    better = found & ((high < state.radius) | (state.block < 0))
    direction = torch.where(better.view(-1, 1, 1, 1), candidate, state.direction)
    new_radius = torch.where(better, high, state.radius)

    moves = found | ~(begins | state.bisects)  # to the next block
    block = torch.where(moves, torch.where(is_last_block, 0, state.block + 1), state.block)
    stage = torch.where(moves & is_last_block, torch.where(is_last_stage, 0, state.stage + 1), state.stage)
    known = torch.where(new_radius <= oracle.threat.epsilon, new_radius, 0.0).view(-1, 1, 1, 1)
    return replace(
        state,
        x_adv=oracle.threat.project(state.x + known * direction, state.x),
        steps=state.steps + 1,
        direction=direction,
        radius=new_radius,
        stage=stage,
        block=block,
        bisects=(begins | state.bisects) & ~found,
        low=low,
        high=high,
    )


def _candidate(state: State) -> tuple[Tensor, Tensor, Tensor]:
    """The direction with a block of it flipped; whether the block (N,) is its stage's last, the stage (N,) the last."""
    pixels = state.x[0].numel()
    size = -(-pixels // 2**state.stage)
    place = torch.arange(pixels, device=state.x.device) // size[:, None]
    flips = (place == state.block[:, None]).view_as(state.x)
    is_last_block = (state.block >= 0) & ((state.block + 1) * size >= pixels)
    is_whole = state.block < 0
    return torch.where(flips, -state.direction, state.direction), is_last_block & ~is_whole, size == 1
