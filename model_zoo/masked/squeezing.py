"""Feature squeezing: fewer grey levels, or a median filter, in front of a network."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.masked.shielded import Shielded


class BitDepth(nn.Module):
    """Each pixel rounded to 2**bits levels.

    Source: Xu, Evans and Qi, arXiv:1704.01155, Section III-A; 1 bit on MNIST, 4 and 5 on CIFAR-10.
    Deviations: none.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.steps: int = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same; the gradient of rounding is zero."""
        return (self.steps * x).round() / self.steps


class Median(nn.Module):
    """Each pixel replaced by the median of a square around it, the image mirrored at its edges.

    Of an even number the upper one of the two in the middle, as in scipy's median filter, which the authors call.

    Source: Xu, Evans and Qi, arXiv:1704.01155, Section III-B; 2x2 and 3x3 on MNIST.
    Deviations: the network is trained behind it, since a digit of 8x8 pixels loses too much in it otherwise.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same; the gradient is that of the pixel taken."""
        before, after = self.size // 2, (self.size - 1) // 2
        x = F.pad(x, (before, after, before, after), mode="reflect")
        squares = x.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        ordered: Tensor = squares.sort(-1).values
        return ordered[..., self.size**2 // 2]


def build_bit_depth(network: nn.Module, _classes: int, _shape: tuple[int, int, int], bits: float) -> nn.Module:
    """The network behind fewer grey levels."""
    return Shielded(BitDepth(int(bits)), network)


def build_median(network: nn.Module, _classes: int, _shape: tuple[int, int, int], size: float) -> nn.Module:
    """The network behind the filter, and trained so."""
    return Shielded(Median(int(size)), network, trains_behind=True)
