"""Lower bounds of all margins by CROWN: by one rule for the slopes, and the best of all rules, optimised."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model_zoo.bounds.crown import (
    RULES,
    Slopes,
    leak_of,
    lower_bounds,
    reaches_by,
)
from model_zoo.bounds.graph import Network
from model_zoo.bounds.interval_bounds import Box, margin_rows, margins_over
from model_zoo.bounds.reach import Reach, first_reach, next_reach

STEPS = 20
"""Of the optimisation of slopes."""
RATE = 0.1
"""Of Adam."""


def interval_margins(network: Network, y: Tensor, reaches: Sequence[Reach]) -> Tensor:
    """(N, K) lower bounds of f_y - f_k, by what the last layer reads; 0 at k = y.

    Args:
        reaches: of all nodes, by any bound.
    """
    last, noise = network.nodes[-1], reaches[-1].noise
    bound = margins_over(last.operation, y, reaches[last.feeds[0]].box)  # type: ignore[arg-type]
    return bound if noise is None else bound - (_rows(network, y).abs() * noise.unsqueeze(1)).sum(2)


def margins_by(network: Network, image: Box, y: Tensor, rule: str) -> Tensor:
    """(N, K) lower bounds of f_y - f_k by one rule for all slopes, and nothing else for the margins; 0 at k = y.

    The bounds of activations are those of the rule and of intervals, whichever is tighter.

    Args:
        image: box of images (N, C, H, W); y: (N,) class indices.
        rule: one of `RULES`; "chord" is the convex outer bound of Wong and Kolter.
    """
    reaches, slopes = reaches_by(network, image, rule)
    return lower_bounds(network, _rows(network, y), network.last, reaches, slopes)


def best_margins(network: Network, image: Box, y: Tensor, *, steps: int = STEPS) -> tuple[Tensor, list[Reach]]:
    """(N, K) lower bounds of f_y - f_k, the best of intervals, of all rules and of optimised slopes; 0 at k = y.

    Each rule is tried alone, and by the bounds of activations that all rules share. Then the slopes of the images
    that are not yet certain climb, for each image and class.

    Args:
        image: box of images (N, C, H, W); y: (N,) class indices.
        steps: of the optimisation; 0 for none.

    Returns: the bounds, and what every node can put out.
    """
    alone = [reaches_by(network, image, rule) for rule in RULES]
    reaches, rows = _shared(network, image, [own for own, _ in alone]), _rows(network, y)
    found = [lower_bounds(network, rows, network.last, reaches, slopes) for _, slopes in alone]
    by_themselves = [lower_bounds(network, rows, network.last, *pair) for pair in alone]
    best = torch.stack([interval_margins(network, y, reaches), *found, *by_themselves]).amax(0)
    others = torch.arange(network.classes, device=y.device) != y.unsqueeze(1)
    unknown = ((best <= 0) & others).any(1).nonzero().squeeze(1)
    if steps and len(unknown):
        part = [reach.of(unknown) for reach in reaches]
        first = torch.stack(found)[:, unknown].argmax(0)  # (M, K) the rule that is the best start
        start = {place: _chosen([slopes[place][unknown] for _, slopes in alone], first) for place in alone[0][1]}
        climbed = optimised(network, rows[unknown], network.last, part, start, steps)
        best[unknown] = torch.maximum(best[unknown], climbed)
    return best, reaches


def _shared(network: Network, image: Box, alone: Sequence[Sequence[Reach]]) -> list[Reach]:
    """What every node can put out, by all rules together and by intervals."""
    reaches = [first_reach(image)]
    for place in range(1, len(network.nodes)):
        reach = next_reach(network, place, reaches)
        for own in alone:
            reach = reach.within(own[place].box)
        reaches.append(reach)
    return reaches


def _rows(network: Network, y: Tensor) -> Tensor:
    last = network.nodes[-1].operation
    return margin_rows(y, last.weight)  # type: ignore[union-attr]


def _chosen(candidates: Sequence[Tensor], first: Tensor) -> Tensor:
    """(M, K, ...) of candidates (M, ...) that one which `first` (M, K) names."""
    stacked = torch.stack(list(candidates), 1)
    return stacked[torch.arange(len(first), device=first.device).unsqueeze(1), first]


def optimised(
    network: Network, rows: Tensor, place: int, reaches: Sequence[Reach], start: Slopes, steps: int
) -> Tensor:
    """(N, R) the best bounds on the way of slopes that climb; of every linear function its own.

    Args:
        rows, place, reaches: as `lower_bounds` takes them.
        start: slopes (N, R, ...) of the activations before the node.
        steps: at least 0.

    Source: Xu et al., arXiv:2011.13824, Section 3.1.
    Deviations: bounds of activations are fixed; the steps are Adam's with a rate that falls by 0.95 each.
    """
    slopes = {at: slope.clone().requires_grad_() for at, slope in start.items()}
    leaks = {at: leak_of(network.nodes[at].operation) for at in slopes}  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(slopes.values(), lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.95)
    best = rows.new_full(rows.shape[:2], -torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            bound = lower_bounds(network, rows, place, reaches, slopes)
            best = torch.maximum(best, bound.detach())
            if step == steps:
                break
            gradients = torch.autograd.grad(-bound.sum(), list(slopes.values()))
        for slope, gradient in zip(slopes.values(), gradients, strict=True):
            slope.grad = gradient
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for at, slope in slopes.items():
                slope.clamp_(leaks[at], 1.0)
    return best
