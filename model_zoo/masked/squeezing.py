"""Feature squeezing: fewer grey levels, or a median filter, in front of a network."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.masked.shielded import Shielded, with_stand_in

SOFTNESS = 0.1
"""How far a pixel may be from the median until it weighs e times less than the median itself."""


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
        return self._median(self._squares(x))

    def softly(self, x: Tensor) -> Tensor:
        """The mean of each square, weighted by how near a pixel is to the median: its stand-in for a gradient.

        An attack that moves the pixel taken alone makes another one the median; this one moves those beside it, too.

        Source: this project.
        """
        squares = self._squares(x)
        apart = (squares - self._median(squares)[..., None]).abs().detach()
        return (squares * F.softmax(-apart / SOFTNESS, -1)).sum(-1)

    def _squares(self, x: Tensor) -> Tensor:
        """(N, C, H, W, size ** 2) the pixels of the square around each pixel."""
        before, after = self.size // 2, (self.size - 1) // 2
        padded = F.pad(x, (before, after, before, after), mode="reflect")
        return padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)

    def _median(self, squares: Tensor) -> Tensor:
        ordered: Tensor = squares.sort(-1).values
        return ordered[..., self.size**2 // 2]


def build_bit_depth(network: nn.Module, _classes: int, _shape: tuple[int, int, int], bits: float) -> nn.Module:
    """The network behind fewer grey levels."""
    return Shielded(BitDepth(int(bits)), network)


def build_median(network: nn.Module, _classes: int, _shape: tuple[int, int, int], size: float) -> nn.Module:
    """The network behind the filter, and trained so."""
    return Shielded(Median(int(size)), network, trains_behind=True)


def median_surrogate(module: nn.Module) -> nn.Module:
    """BPDA with the soft median; the filter's own gradient is a true one, and this a smoother one."""
    assert isinstance(module, Shielded)
    assert isinstance(module.transform, Median)
    return with_stand_in(module, module.transform.softly)
