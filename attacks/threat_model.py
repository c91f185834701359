"""What an attack may change: a norm ball around the image, cut with the pixel range [0, 1]."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.scale import unit

LARGEST_EPSILON = {"Linf": 1.0, "L2": 10.0}
"""Norms and the largest radius, in pixel scale, that is not taken for a mistake of unit (8 instead of 8/255)."""


@dataclass(frozen=True)
class ThreatModel:
    """The set of images within `epsilon` of x under `norm`, and inside [0, 1].

    Args:
        norm: "Linf" or "L2", taken over all pixels and channels of one image.
        epsilon: radius in pixel scale: 8/255, never 8.

    Raises: InputError for an unknown norm, or an epsilon that is not a radius in pixel scale.
    """

    norm: str
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm not in LARGEST_EPSILON:
            raise InputError(f"norm must be one of {', '.join(LARGEST_EPSILON)}, got {self.norm!r}")
        largest = LARGEST_EPSILON[self.norm]
        if not 0 <= self.epsilon <= largest:
            hint = f"; did you mean {self.epsilon:g}/255?" if 1 <= self.epsilon <= 255 else ""
            raise InputError(
                f"epsilon must be in [0, {largest:g}] pixel scale for {self.norm}, got {self.epsilon}{hint}"
            )

    @property
    def tolerance(self) -> float:
        """How far float32 rounding alone may carry a projected point beyond epsilon."""
        return 1e-6 + 1e-5 * self.epsilon

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) float64 distances between images (N, C, H, W)."""
        delta = (x_adv.double() - x.double()).flatten(1)
        return delta.abs().amax(1) if self.norm == "Linf" else delta.norm(dim=1)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N, C, H, W) the nearest point of the ball, then of [0, 1], to x_adv; inside both, since x is in [0, 1]."""
        if self.norm == "Linf":
            inside = torch.minimum(torch.maximum(x_adv, x - self.epsilon), x + self.epsilon)
        else:
            delta = x_adv - x
            inside = x + delta * (self.epsilon / _l2(delta).clamp_min(1e-12)).clamp_max(1.0)
        return inside.clamp(0.0, 1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        """(N, C, H, W) directions of steepest ascent, of length 1 in this norm; zero where the gradient is zero."""
        return gradient.sign() if self.norm == "Linf" else unit(gradient)

    def random_start(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, C, H, W) points drawn uniformly from the balls around x, clipped to [0, 1]: a draw an image."""
        return self.project(self.unclipped_start(x, draws), x)

    def unclipped_start(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, C, H, W) the same points before they are clipped to [0, 1]."""
        shape = x.shape[1:]
        if self.norm == "Linf":
            delta = 2.0 * draws.uniform(shape) - 1.0
        else:
            radius = draws.uniform((1, 1, 1), stream=1) ** (1.0 / math.prod(shape))
            gaussian = draws.normal(shape)
            delta = gaussian / _l2(gaussian) * radius
        return x + self.epsilon * delta

    def on_sphere(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, C, H, W) random points at distance epsilon, clipped to [0, 1]: scaled uniform (Linf) or normal draws."""
        shape = x.shape[1:]
        noise = 2.0 * draws.uniform(shape) - 1.0 if self.norm == "Linf" else draws.normal(shape)
        length = self.distance(noise, torch.zeros_like(noise)).float().view(-1, 1, 1, 1)
        return self.project(x + self.epsilon * noise / length.clamp_min(1e-12), x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) bool: inside [0, 1] exactly, and inside the ball but for float32 rounding. NaN is outside."""
        flat = x_adv.flatten(1)
        in_range = ((flat >= 0) & (flat <= 1)).all(1)
        return in_range & (self.distance(x_adv, x) <= self.epsilon + self.tolerance)


def _l2(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean norms."""
    norms: Tensor = delta.flatten(1).norm(dim=1)
    return norms.view(-1, 1, 1, 1)
