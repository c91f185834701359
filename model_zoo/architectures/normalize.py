"""Input normalisation as the first layer of a model, so that epsilon keeps its meaning in pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.errors import InputError


class Normalize(nn.Module):
    """Maps images in [0, 1] to `(x - mean) / std`, channel by channel.

    It sits inside the model: attacks see [0, 1] only, and a perturbation budget is never divided by `std`. The
    constants move with the model but are no part of its state dict, because released checkpoints do not carry them.

    Args:
        mean, std: one number per channel, in pixel scale [0, 1]; every `std` above 0.

    Raises:
        InputError: different lengths, or a `std` that is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise InputError(
                f"normalisation expects a mean and a std above 0 for every channel, got mean {tuple(mean)} "
                f"and std {tuple(std)}; give equally many of both"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to normalised images of the same shape."""
        return (x - self.mean) / self.std
