"""Transformations of the input at random: resized and padded, or with noise added."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.masked.shielded import Shielded


class ResizePad(nn.Module):
    """A batch of images resized to a size drawn, and padded at a place drawn to its size.

    Args:
        smallest: of the sizes drawn, as a share of the image's.

    Source: Xie, Wang, Zhang, Ren and Yuille, arXiv:1711.01991, Section 3.1 (299 to 331 pixels, padded to 331: a share
    of 0.9).
    Deviations: images become smaller, not larger, since small networks take one size alone, and the network is trained
    behind it, since it does not bear moved images otherwise.
    """

    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same."""
        height, width = x.shape[2:]
        rows = _draw(round(self.smallest * height), height)
        columns = min(width, max(1, round(rows * width / height)))
        top, left = _draw(0, height - rows), _draw(0, width - columns)
        resized = F.interpolate(x, (rows, columns), mode="nearest")
        return F.pad(resized, (left, width - columns - left, top, height - rows - top))


class Noise(nn.Module):
    """Gaussian noise on every pixel.

    Source: Liu, Cheng, Zhang and Hsieh, arXiv:1712.00673 (random self-ensemble; 0.2 in front of the first layer).
    Deviations: there is no noise in front of later layers, and the judge's mean over passes is the ensemble.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same, no longer in [0, 1]."""
        return x + self.sigma * torch.randn_like(x)


def _draw(low: int, high: int) -> int:
    """A whole number between two, both included, by torch's global generator."""
    return int(torch.randint(low, high + 1, (1,)))


def build_resize_pad(network: nn.Module, _classes: int, _shape: tuple[int, int, int], smallest: float) -> nn.Module:
    """The network behind the transformation, and trained so."""
    return Shielded(ResizePad(smallest), network, trains_behind=True)


def build_noise(network: nn.Module, _classes: int, _shape: tuple[int, int, int], sigma: float) -> nn.Module:
    """The network behind the noise, and trained so."""
    return Shielded(Noise(sigma), network, trains_behind=True)


def surrogate(module: nn.Module) -> nn.Module:
    """The model itself: it is differentiable, and the attack averages its draws.

    Source: Athalye, Carlini and Wagner, arXiv:1802.00420 (EOT).
    """
    return module
