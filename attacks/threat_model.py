"""What an attack may change: a norm ball around the image, cut with the pixel range [0, 1]; or rotation and shift."""

import math
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.l1_ball import project_l0, project_l1
from attacks.scale import tolerance_of, unit
from attacks.spatial import SPATIAL, degrees_of, family_of, transform

LARGEST_EPSILON = {"Linf": 1.0, "L2": 10.0, "L1": 1000.0, "L0": 10000.0, SPATIAL: 100.0}
"""Families and the largest radius that is not taken for a mistake of unit (8 instead of 8/255)."""
BALLS = ("Linf", "L2")
"""Norms that steps and random starts are known for."""


@dataclass(frozen=True)
class ThreatModel:
    """The set of images within `epsilon` of x under `norm`, and inside [0, 1].

    What an attack proposes is an image (C, H, W). Under a spatial threat model it is the parameters (3,) of
    `spatial.transform`, and the image is made of the clean one, by the judge as well as by the attack (`images`).

    Args:
        norm: "Linf", "L2" or "L1", taken over all pixels and channels of one image; "L0", the number of pixels of which
            any channel differs; "spatial-30deg", rotations by up to 30 degrees with shifts.
        epsilon: radius in pixel scale: 8/255, never 8. Under L0 a number of pixels; under a spatial threat model the
            largest shift in pixels, in each direction.

    Raises: InputError for an unknown norm, or an epsilon that is not a radius in its scale.
    """

    norm: str
    epsilon: float

    def __post_init__(self) -> None:
        if self.norm == SPATIAL or self.family not in LARGEST_EPSILON:
            known = [*(name for name in LARGEST_EPSILON if name != SPATIAL), f"{SPATIAL}-30deg"]
            raise InputError(f"norm must be one of {', '.join(known)}, got {self.norm!r}")
        largest = LARGEST_EPSILON[self.family]
        if not 0 <= self.epsilon <= largest:
            in_pixels = self.family in ("L0", SPATIAL)
            hint = f"; did you mean {self.epsilon:g}/255?" if 1 <= self.epsilon <= 255 and not in_pixels else ""
            scale = "pixels" if in_pixels else "pixel scale"
            raise InputError(f"epsilon must be in [0, {largest:g}] {scale} for {self.norm}, got {self.epsilon}{hint}")

        if self.family == "L0" and self.epsilon != round(self.epsilon):
            raise InputError(f"epsilon of L0 is a number of pixels, expected a whole one, got {self.epsilon:g}")

    @property
    def family(self) -> str:
        """The norm, or "spatial": what attacks are defined for."""
        return family_of(self.norm)

    @property
    def degrees(self) -> float:
        """The largest rotation; 0 for a norm."""
        return degrees_of(self.norm) or 0.0

    def require_ball(self, what: str) -> None:
        """Raise InputError, which names what it is for, for a threat model that is no ball of Linf or L2."""
        if self.norm not in BALLS:
            raise InputError(f"{what}: expected {' or '.join(BALLS)}, got {self.norm}; use a threat model of these")

    def images(self, proposed: Tensor, x: Tensor) -> Tensor:
        """(N, C, H, W) what attacks propose, as images: themselves, or made of x by a rotation and a shift (N, 3)."""
        return transform(x, proposed) if self.family == SPATIAL else proposed

    def unchanged(self, x: Tensor) -> Tensor:
        """The proposals that leave images as they are: (N, C, H, W), or (N, 3)."""
        return x.new_zeros(len(x), 3) if self.family == SPATIAL else x.clone()

    @property
    def tolerance(self) -> float:
        """How far float32 rounding alone may carry a projected point beyond epsilon."""
        return tolerance_of(self.epsilon)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) float64 distances between images (N, C, H, W).

        Under a spatial threat model x_adv is (N, 3), and the distance the larger shift; infinite beyond the angle.
        """
        if self.family == SPATIAL:
            degrees, shift = x_adv[:, 0].double().abs(), x_adv[:, 1:].double().abs().amax(1)
            return torch.where(degrees <= self.degrees * (1 + 1e-6), shift, torch.inf)
        delta = (x_adv.double() - x.double()).flatten(1)
        if self.norm == "L0":
            return (x_adv != x).any(1).flatten(1).double().sum(1)
        if self.norm == "L1":
            return delta.abs().sum(1)
        return delta.abs().amax(1) if self.norm == "Linf" else delta.norm(dim=1)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N, C, H, W) the nearest point of the ball, then of [0, 1], to x_adv; inside both, since x is in [0, 1]."""
        if self.norm == "Linf":
            return torch.clamp(x_adv, *_bounds_of(x, self.epsilon))
        if self.norm == "L2":
            delta = x_adv - x
            inside = x + delta * (self.epsilon / _l2(delta).clamp_min(1e-12)).clamp_max(1.0)
        else:
            assert self.norm in ("L1", "L0"), (
                "the parameters of a spatial attack are kept in their limits by the attack"
            )
            return (project_l1 if self.norm == "L1" else project_l0)(x_adv, x, self.epsilon)
        return inside.clamp(0.0, 1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        """(N, C, H, W) directions of steepest ascent, of length 1 in this norm; zero where the gradient is zero."""
        self.require_ball("steps of steepest ascent")
        return gradient.sign() if self.norm == "Linf" else unit(gradient)

    def random_start(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, C, H, W) points drawn uniformly from the balls around x, clipped to [0, 1]: a draw an image."""
        return self.project(self.unclipped_start(x, draws), x)

    def unclipped_start(self, x: Tensor, draws: Draws) -> Tensor:
        """(N, C, H, W) the same points before they are clipped to [0, 1]."""
        self.require_ball("random starts")
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
        """(N,) bool: inside [0, 1] exactly, and inside the ball but for float32 rounding. NaN is outside.

        Under a spatial threat model x_adv is (N, 3), and whatever is made of x by them is inside [0, 1].
        """
        if self.family == SPATIAL:
            return self.distance(x_adv, x) <= self.epsilon + self.tolerance
        flat = x_adv.flatten(1)
        in_range = ((flat >= 0) & (flat <= 1)).all(1)
        return in_range & (self.distance(x_adv, x) <= self.epsilon + self.tolerance)


def _bounds_of(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) the least and the largest pixels of the ball within [0, 1].

    Those of the images that were asked about last are kept while these are: an attack projects around the same ones at
    every step.
    """
    global _last_bounds
    version = None if x.is_inference() else x._version
    kept = _last_bounds
    if kept is not None and version is not None and kept[0]() is x and kept[1] == (version, epsilon):
        return kept[2]
    bounds = (x - epsilon).clamp_(0.0, 1.0), (x + epsilon).clamp_(0.0, 1.0)
    if version is not None:
        _last_bounds = weakref.ref(x, _forget), (version, epsilon), bounds
    return bounds


_last_bounds: tuple["weakref.ref[Tensor]", tuple[int, float], tuple[Tensor, Tensor]] | None = None


def _forget(images: "weakref.ref[Tensor]") -> None:
    """Let go of the bounds of images that are no more."""
    global _last_bounds
    if _last_bounds is not None and _last_bounds[0] is images:
        _last_bounds = None


def _l2(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean norms."""
    norms: Tensor = delta.flatten(1).norm(dim=1)
    return norms.view(-1, 1, 1, 1)
