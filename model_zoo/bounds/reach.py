"""What every node of a network can put out over a box of images, in the arithmetic of the judge.

A sum of k products, added up in whatever order, is off by gamma_k = k u / (1 - k u) times the sum of their absolute
values at most; u is the rounding unit. So a float32 pass is an exact pass with some noise added at every node, and what
is bounded is that. It does not hold for convolutions by Winograd's or Fourier's transform, which add up other terms.

The bounds themselves are computed in float64. Their own rounding is at most the same sums with the rounding unit of
float64, once for each node that they pass; the noise is widened by so much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_zoo.bounds.graph import Network
from model_zoo.bounds.interval_bounds import Box, propagate
from model_zoo.bounds.layers import Convolution, Dense, Flatten, MaxPool
from model_zoo.bounds.operations import LeakyRelu, Sum

FLOAT64 = 2.0**-53
"""The rounding unit of the bounds themselves."""
EXTRA = 8
"""Roundings of a layer beside those of its sum: batch norm divides by a root, scales and shifts."""


@dataclass(frozen=True)
class Reach:
    """What one node can put out.

    Args:
        box: (N, ...), rounding included.
        noise: (N, ...) how far it may be from what it should make of the same inputs; None for not at all.
    """

    box: Box
    noise: Tensor | None = None

    def within(self, box: Box) -> "Reach":
        """The same, known to lie in another box, too."""
        return replace(self, box=self.box.meet(box))

    def of(self, images: Tensor) -> "Reach":
        """That of some of the images, by their places (M,)."""
        box = Box(self.box.lower[images], self.box.upper[images])
        return Reach(box, None if self.noise is None else self.noise[images])


def first_reach(image: Box) -> Reach:
    """That of the images themselves."""
    return Reach(image)


def interval_reaches(network: Network, image: Box) -> list[Reach]:
    """What every node can put out over a box of images, by intervals."""
    reaches = [first_reach(image)]
    for place in range(1, len(network.nodes)):
        reaches.append(next_reach(network, place, reaches))
    return reaches


def next_reach(network: Network, place: int, reaches: Sequence[Reach]) -> Reach:
    """What one node can put out, by intervals, given what those before it can.

    Source: Gowal et al., arXiv:1810.12715, Equations 6 and 7; Higham, Accuracy and Stability of Numerical Algorithms,
    2002, Section 3.1.
    """
    node = network.nodes[place]
    feeds = [reaches[feed].box for feed in node.feeds]
    match node.operation:
        case Sum():
            box = Box(feeds[0].lower + feeds[1].lower, feeds[0].upper + feeds[1].upper)
        case Dense() | Convolution() | Flatten() | MaxPool():
            box = propagate([node.operation], feeds[0])
        case _:  # increasing in every coordinate
            box = Box(node.operation(feeds[0].lower), node.operation(feeds[0].upper))
    noise = _noise(network, place, feeds) if network.unit else None
    return Reach(box) if noise is None else Reach(Box(box.lower - noise, box.upper + noise), noise)


def _noise(network: Network, place: int, feeds: Sequence[Box]) -> Tensor | None:
    """(N, ...) of one node; None for one that computes exactly."""
    node = network.nodes[place]
    sizes = [torch.maximum(box.lower.abs(), box.upper.abs()) for box in feeds]
    match node.operation:
        case Dense() | Convolution():
            constants = node.operation.bias.abs() if node.constants is None else node.constants
            constants = constants.view(-1, *(1 for _ in node.shape[1:]))
            terms = node.operation.weight[0].numel() + EXTRA
            return _gamma(network, terms) * (node.operation.magnitude(sizes[0]) + constants) * (1 + _of_bounds(network))
        case Sum():
            return _gamma(network, 1) * (sizes[0] + sizes[1]) * (1 + _of_bounds(network))
        case LeakyRelu():  # two roundings: that of the leak to float32, and that of the product
            return _gamma(network, 2) * node.operation.leak * sizes[0] * (1 + _of_bounds(network))
    return None


def _gamma(network: Network, terms: int) -> float:
    return terms * network.unit / (1 - terms * network.unit)


def _of_bounds(network: Network) -> float:
    """The rounding of the bounds, as a share of that of the pass."""
    return 8 * network.largest * len(network.nodes) * FLOAT64 / network.unit
