"""Interval bound propagation: what every layer can put out, neuron by neuron, over a box of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model_zoo.bounds.layers import Convolution, Dense, Layer, layers


@dataclass(frozen=True)
class Box:
    """All points between two, coordinate by coordinate.

    Args:
        lower, upper: (N, ...), lower <= upper.
    """

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    def meet(self, other: "Box") -> "Box":
        """What lies in both."""
        return Box(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))


def image_box(x: Tensor, epsilon: float) -> Box:
    """The Linf threat model around images (N, C, H, W) in [0, 1]: the ball cut with the pixel range."""
    return Box((x - epsilon).clamp_min(0.0), (x + epsilon).clamp_max(1.0))


def propagate(chain: Sequence[Layer], box: Box) -> Box:
    """A box that holds what the layers make of every point of `box`.

    Source: Gowal et al., arXiv:1810.12715, Equations 6 and 7.
    """
    for layer in chain:
        if isinstance(layer, Dense | Convolution):
            center, radius = layer(box.center), layer.magnitude(box.radius)
            box = Box(center - radius, center + radius)
        else:  # increasing in every coordinate
            box = Box(layer(box.lower), layer(box.upper))
    return box


def margins(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """(N, K) lower bounds of f_y - f_k over the Linf ball, by intervals; 0 at k = y.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        epsilon: radius in pixel scale.

    Source: Gowal et al., arXiv:1810.12715, Section 3; the last layer is merged with the margins, as there.
    Deviations: none.
    """
    chain = layers(model)
    return margins_over(chain[-1], y, propagate(chain[:-1], image_box(x, epsilon)))


def margins_over(last: Layer, y: Tensor, box: Box) -> Tensor:
    """(N, K) lower bounds of f_y - f_k where `last` is the layer of logits and `box` holds what goes into it."""
    assert isinstance(last, Dense)
    rows = margin_rows(y, last.weight)
    direct = last.transpose(rows, box.lower.shape[1:])
    bound = (direct * box.center.unsqueeze(1)).sum(2) - (direct.abs() * box.radius.unsqueeze(1)).sum(2)
    return bound + last.offset(rows)


def margin_rows(y: Tensor, weight: Tensor) -> Tensor:
    """(N, K, K): row k of image n takes f_y - f_k from the logits. `weight` (K, D) is that of the last layer."""
    one = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    return one[y].unsqueeze(1) - one
