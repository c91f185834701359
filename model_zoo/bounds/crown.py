"""CROWN: linear bounds carried from an output back to the image, through lines around every activation.

An activation between bounds l < 0 < u of its input lies below the chord and above a line through the origin, whatever
slope from its leak to 1 that has. So a linear function of the outputs lies above a linear function of the image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_zoo.bounds.graph import IMAGE, Network
from model_zoo.bounds.interval_bounds import Box
from model_zoo.bounds.layers import Convolution, Dense, Flatten, MaxPool
from model_zoo.bounds.operations import Activation, LeakyRelu, Sum
from model_zoo.bounds.pool_lines import through_pool
from model_zoo.bounds.reach import Reach, first_reach, next_reach

Slopes = Mapping[int, Tensor]
"""By place of an activation, the slopes of its lower line, (N, ...) or, one for each linear function, (N, R, ...)."""
RULES = ("zero", "adaptive", "chord")
"""Slopes of the lower line: the leak; 1 where u >= -l, else the leak; that of the chord."""
ELEMENTS = 2**26
"""Coefficients that are held at a time: half a gigabyte."""


@dataclass(frozen=True)
class Lines:
    """An activation lies between slope_low * z and slope_up * z + offset_up.

    Args:
        slope_low: (N, 1 or R, ...); slope_up, offset_up: (N, 1, ...).
    """

    slope_low: Tensor
    slope_up: Tensor
    offset_up: Tensor


def rule_slopes(box: Box, leak: float, rule: str) -> Tensor:
    """(N, ...) slopes of the lower line by one of `RULES`, of an activation whose input lies in a box."""
    if rule == "zero":
        return torch.full_like(box.lower, leak)
    if rule == "adaptive":
        one = torch.ones_like(box.lower) if leak else 1.0  # of two plain numbers float32 is made, which rounds the leak
        return torch.where(box.upper >= -box.lower, one, leak)
    return _chord(box, leak)


def lines(box: Box, leak: float, slopes: Tensor) -> Lines:
    """The lines around an activation; where its input has one sign both are the activation itself.

    Args:
        slopes: (N, ...) or (N, R, ...), of the lower lines elsewhere.
    """
    slopes = slopes if slopes.ndim > box.lower.ndim else slopes.unsqueeze(1)
    lower, upper, chord = (part.unsqueeze(1) for part in (box.lower, box.upper, _chord(box, leak)))
    is_unstable = (lower < 0) & (upper > 0)
    return Lines(torch.where(is_unstable, slopes, chord), chord, torch.where(is_unstable, (1 - chord) * upper, 0.0))


def _chord(box: Box, leak: float) -> Tensor:
    """(N, ...) slopes of the upper line; of a stable activation its own."""
    is_unstable = (box.lower < 0) & (box.upper > 0)
    width = torch.where(is_unstable, box.upper - box.lower, 1.0)
    return torch.where(
        is_unstable, (box.upper - leak * box.lower) / width, torch.where(box.lower >= 0, torch.ones_like(width), leak)
    )


def leak_of(operation: Activation) -> float:
    """The slope of an activation where its input is negative."""
    return operation.leak if isinstance(operation, LeakyRelu) else 0.0


def lower_bounds(
    network: Network,
    rows: Tensor,
    place: int,
    reaches: Sequence[Reach],
    slopes: Slopes,
    *,
    multipliers: Slopes | None = None,
    seen: dict[int, Tensor] | None = None,
) -> Tensor:
    """(N, R) lower bounds of linear functions of what a node puts out, over the box of images.

    Args:
        rows: (N, R, ...) their coefficients.
        place: of the node.
        reaches: of the nodes up to it; the first is that of the images.
        multipliers: by place of an activation, (N, 1 or R, ...) of its input: positive only where that is known to be
            at least 0, negative only where it is known to be at most 0. The bound then is of the images for which this
            is so (Lagrange's multipliers of these constraints).
        seen: is given the coefficients (N, R, ...) of what each activation puts out, and of the images, flattened.

    Source: Zhang et al., arXiv:1811.00866, Theorem 3.2; alpha as in Xu et al., arXiv:2011.13824; multipliers as in
        Wang et al., arXiv:2103.06624, Theorem 3.1.
    """
    bound, image = rows.new_zeros(rows.shape[:2]), reaches[IMAGE].box
    waiting = {place: rows}
    for at in range(place, IMAGE, -1):
        if at not in waiting:
            continue
        rows, node = waiting.pop(at), network.nodes[at]
        noise = reaches[at].noise
        if noise is not None:
            bound = bound - (rows.abs().flatten(2) @ noise.flatten(1).unsqueeze(2)).squeeze(2)
        feed, operation = node.feeds[0], node.operation
        shape = network.nodes[feed].shape
        match operation:
            case Dense() | Convolution():
                bound = bound + operation.offset(rows)
                rows = operation.transpose(rows, shape)
            case Flatten():
                rows = rows.unflatten(2, shape)
            case Sum():
                _add(waiting, node.feeds[1], rows)
            case MaxPool():
                rows, offset = through_pool(rows, operation, reaches[feed].box)
                bound = bound + offset
            case _:
                around = lines(reaches[feed].box, leak_of(operation), slopes[at])  # type: ignore[arg-type]
                if seen is not None:
                    seen[at] = rows
                above, below = rows.clamp_min(0), rows.clamp_max(0)
                bound = bound + (below.flatten(2) @ around.offset_up.flatten(2).mT).squeeze(2)
                rows = above * around.slope_low + below * around.slope_up
                if multipliers is not None:
                    rows = rows - multipliers[at]
        _add(waiting, feed, rows)
    rows = waiting[IMAGE].flatten(2)
    if seen is not None:
        seen[IMAGE] = rows
    center, radius = (part.flatten(1).unsqueeze(2) for part in (image.center, image.radius))
    return bound + (rows @ center - rows.abs() @ radius).squeeze(2)


def _add(waiting: dict[int, Tensor], place: int, rows: Tensor) -> None:
    waiting[place] = waiting[place] + rows if place in waiting else rows


def reaches_by(network: Network, image: Box, rule: str) -> tuple[list[Reach], dict[int, Tensor]]:
    """What every node can put out by CROWN with one rule and by intervals, whichever is tighter, and the slopes.

    Args:
        rule: one of `RULES`.
    """
    reaches = [first_reach(image)]
    slopes: dict[int, Tensor] = {}
    read = read_by_activations(network)
    for place, node in enumerate(network.nodes[1:], 1):
        if isinstance(node.operation, Activation):
            slopes[place] = rule_slopes(reaches[node.feeds[0]].box, leak_of(node.operation), rule)
        reach = next_reach(network, place, reaches)
        if place in read:
            reach = reach.within(output_box(network, place, [*reaches, reach], slopes))
        reaches.append(reach)
    return reaches, slopes


def read_by_activations(network: Network) -> set[int]:
    """The nodes whose bounds matter to an activation or a pooling, and that intervals alone do not bound exactly."""
    read = {node.feeds[0] for node in network.nodes if isinstance(node.operation, Activation | MaxPool) and node.feeds}
    return {place for place in read if not _is_first_layer(network, place)}


def _is_first_layer(network: Network, place: int) -> bool:
    """Whether a node is a linear layer of the image itself, or the image, of which intervals are exact."""
    node = network.nodes[place]
    return place == IMAGE or (isinstance(node.operation, Dense | Convolution) and node.feeds[0] == IMAGE)


def output_box(network: Network, place: int, reaches: Sequence[Reach], slopes: Slopes) -> Box:
    """What a node can put out, by CROWN. Of its own reach the noise alone is asked for."""
    if columns := _columns(network, place, reaches, slopes):
        return columns
    shape = network.nodes[place].shape
    lower, upper = [], []
    for rows in _unit_rows(shape, reaches[IMAGE].box.lower, network.largest):
        lower.append(lower_bounds(network, rows, place, reaches, slopes))
        upper.append(-lower_bounds(network, -rows, place, reaches, slopes))
    return Box(*(torch.cat(part, 1).unflatten(1, shape) for part in (lower, upper)))


def _unit_rows(shape: Sequence[int], like: Tensor, largest: int) -> Iterator[Tensor]:
    """(N, R, *shape) a row for each neuron, so many at a time as memory holds."""
    neurons = torch.Size(shape).numel()
    some = max(1, ELEMENTS // (largest * len(like)))
    for first in range(0, neurons, some):
        count = min(some, neurons - first)
        one = like.new_zeros(count, neurons)
        one[torch.arange(count), torch.arange(first, first + count)] = 1
        yield one.view(1, count, *shape).expand(len(like), -1, *(-1 for _ in shape))


def _columns(network: Network, place: int, reaches: Sequence[Reach], slopes: Slopes) -> Box | None:
    """The same from the pixels forward, where that is the same bound and takes fewer columns than there are neurons.

    It is for one linear layer of one activation of one linear layer: what multiplies a pixel on the way is then the
    same sum, in another order.
    """
    node, image = network.nodes[place], reaches[IMAGE].box
    middle = network.nodes[node.feeds[0]]
    first = network.nodes[middle.feeds[0]] if middle.feeds else middle
    pixels = image.lower[0].numel()
    is_short = isinstance(middle.operation, Activation) and _is_first_layer(network, middle.feeds[0])
    if not is_short or pixels >= torch.Size(node.shape).numel():
        return None
    if not isinstance(node.operation, Dense | Convolution) or not isinstance(first.operation, Dense | Convolution):
        return None
    around = lines(reaches[middle.feeds[0]].box, leak_of(middle.operation), slopes[node.feeds[0]])  # type: ignore[arg-type]
    one = torch.eye(pixels, dtype=image.lower.dtype, device=image.lower.device).view(1, pixels, *image.lower.shape[1:])
    columns, start = first.operation.linear(one), first.operation(torch.zeros_like(image.lower[:1])).unsqueeze(1)
    noise = [_or_zero(reaches[at].noise, image.lower) for at in (middle.feeds[0], node.feeds[0], place)]
    low, up = around.slope_low * columns, around.slope_up * columns
    low_start = around.slope_low * (start - noise[0]) - noise[1]
    up_start = around.slope_up * (start + noise[0]) + around.offset_up + noise[1]
    sides = []
    parallel = node.operation.linear(low).flatten(2) if torch.equal(around.slope_low, around.slope_up) else None
    for down, top, start_down, start_top in ((low, up, low_start, up_start), (up, low, up_start, low_start)):
        of_pixels = _signed(node.operation, down, top).flatten(2) if parallel is None else parallel
        constant = _signed(node.operation, start_down, start_top).flatten(1)
        constant = constant + node.operation(image.lower.new_zeros(1, *middle.shape)).flatten(1)
        center = (image.center.flatten(1).unsqueeze(1) @ of_pixels).squeeze(1)
        sides.append((constant + center, (image.radius.flatten(1).unsqueeze(1) @ of_pixels.abs()).squeeze(1)))
    (lower, under), (upper, over) = sides
    under, over = (radius + (noise[2].flatten(1) if noise[2].ndim else 0.0) for radius in (under, over))
    return Box((lower - under).unflatten(1, node.shape), (upper + over).unflatten(1, node.shape))


def _or_zero(noise: Tensor | None, like: Tensor) -> Tensor:
    """(N, 1, ...) noise, or a zero."""
    return like.new_zeros(()) if noise is None else noise.unsqueeze(1)


def _signed(operation: Dense | Convolution, down: Tensor, top: Tensor) -> Tensor:
    """(N, P, ...) what a linear layer without its bias makes of `down` where its weight is positive, else of `top`."""
    positive = replace(operation, weight=operation.weight.clamp_min(0))
    negative = replace(operation, weight=operation.weight.clamp_max(0))
    return positive.linear(down) + negative.linear(top)
