"""Which images are proven to keep their class in the whole Linf ball."""

import copy
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from model_zoo.bounds import convex, interval_bounds


class Margins(Protocol):
    """(N, K) lower bounds of f_y - f_k over the Linf ball."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float, /) -> Tensor: ...


def by_intervals(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """(N,) bool: interval propagation proves class y for every image within epsilon of x (N, C, H, W)."""
    return _certified(interval_bounds.margins, model, x, y, epsilon)


def by_convex_bound(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """(N,) bool: the convex outer bound proves class y for every image within epsilon of x (N, C, H, W)."""
    return _certified(convex.margins, model, x, y, epsilon)


@torch.no_grad()
def _certified(margins: Margins, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Bounds in float64: what they leave to rounding is then the network's own float32 arithmetic."""
    exact = copy.deepcopy(model).double().eval()
    parts = zip(x.split(50), y.split(50), strict=True)  # the convex bound takes megabytes for each image
    bounds = torch.cat([margins(exact, images.double(), labels, epsilon) for images, labels in parts])
    others = torch.ones_like(bounds, dtype=torch.bool).scatter(1, y.unsqueeze(1), False)
    return ((bounds > 0) | ~others).all(1)


BOUNDS: Mapping[str, Callable[[nn.Module, Tensor, Tensor, float], Tensor]] = {
    "intervals": by_intervals,
    "convex": by_convex_bound,
}
"""`BOUNDS[name](model, x, y, epsilon)` are the images (N,) bool that the bound of that name certifies."""
