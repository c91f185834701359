"""Lengths and directions of tensors of any scale: nothing here underflows or overflows, down to denormal numbers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PER_IMAGE = (1, 2, 3)
"""The axes of one image of a batch (N, C, H, W)."""

PER_CHANNEL = (2, 3)
"""Those of one of its channels."""


def rescaled(tensor: Tensor, dims: Sequence[int] = PER_IMAGE) -> tuple[Tensor, Tensor]:
    """Each slice times the power of two that brings its largest magnitude into [0.5, 1).

    A power of two changes no digit, so that what follows rounds as it would have without it.

    Args:
        tensor: finite.
        dims: the axes that belong together.

    Returns: the tensor, and the exponents e, int32 with size 1 along `dims`: tensor = rescaled * 2 ** e. Zero stays 0.
    """
    exponent = _exponent(tensor, dims)
    return times_power_of_two(tensor, -exponent), exponent


def rescaled_by(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `rescaled` for each image (N, C, H, W), and what scales a number of each image (N,) by the same power."""
    exponent = _exponent(tensor, PER_IMAGE).neg_()
    half = exponent // 2
    first, second = torch.pow(2.0, half), torch.pow(2.0, exponent.sub_(half))

    def shift(number: Tensor) -> Tensor:
        return (number * first.flatten()).mul_(second.flatten())

    return (tensor * first).mul_(second), shift


def times_power_of_two(tensor: Tensor, exponent: Tensor) -> Tensor:
    """tensor * 2 ** exponent, where the power alone may be out of range."""
    half = exponent // 2
    return torch.ldexp(torch.ldexp(tensor, half), exponent - half)


def _exponent(tensor: Tensor, dims: Sequence[int]) -> Tensor:
    """Of the largest magnitude of each slice, which is in [0.5, 1) times that power of two."""
    return torch.frexp(tensor.abs().amax(tuple(dims), keepdim=True)).exponent


def unit(tensor: Tensor, dims: Sequence[int] = PER_IMAGE, *, order: int = 2) -> Tensor:
    """Each slice divided by its L1 or L2 norm over `dims`; zero where it is zero."""
    scaled, _ = rescaled(tensor, dims)
    norm = torch.linalg.vector_norm(scaled, order, tuple(dims), keepdim=True)
    return scaled / torch.where(norm > 0, norm, 1.0)


def tolerance_of(epsilon: float) -> float:
    """How far float32 rounding alone may carry a projected point beyond a ball of radius epsilon."""
    return 1e-6 + 1e-5 * epsilon
