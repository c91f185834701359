"""Rotations and shifts of images: what an attack proposes under a spatial threat model, and what is made of it."""

import math
import re

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

SPATIAL = "spatial"
"""The family of threat models by rotation and shift; one with up to 30 degrees is called spatial-30deg."""
_NAME = re.compile(rf"{SPATIAL}-(\d+(?:\.\d+)?)deg")


def family_of(norm: str) -> str:
    """What attacks are defined for: "spatial" for spatial-30deg, any other norm itself."""
    return SPATIAL if degrees_of(norm) is not None else norm


def degrees_of(norm: str) -> float | None:
    """The largest rotation, in degrees, that a spatial threat model allows; None for a norm, and beyond 180."""
    found = _NAME.fullmatch(norm)
    degrees = float(found[1]) if found else 360.0
    return degrees if degrees <= 180.0 else None


def transform(x: Tensor, parameters: Tensor) -> Tensor:
    """(N, C, H, W) images in [0, 1], rotated about their centre and then shifted; black where they end.

    Args:
        x: (N, C, H, W) in [0, 1], not modified.
        parameters: (N, 3) degrees anticlockwise, pixels to the right, pixels down. Where all are 0 the image is the
            same to the bit.

    Source: Engstrom et al., arXiv:1712.02779, Section 2: bilinear interpolation.
    """
    height, width = x.shape[2:]
    down, right = (torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2 for size in (height, width))
    degrees, by_right, by_down = (parameters.to(x.dtype)[:, k, None, None] for k in range(3))
    from_right, from_down = right[None, None, :] - by_right, down[None, :, None] - by_down
    angle = degrees * (math.pi / 180)
    source_right = from_right * angle.cos() - from_down * angle.sin()
    source_down = from_right * angle.sin() + from_down * angle.cos()
    grid = torch.stack([2 * source_right / width, 2 * source_down / height], -1)
    moved = grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp(0.0, 1.0)
    still = (parameters == 0).all(1).view(-1, 1, 1, 1)
    return torch.where(still, x, moved)
