"""Thermometer encoding: each pixel becomes a row of zeros and ones, which has no gradient."""

import torch
from torch import Tensor, nn

from attacks.bpda import Bpda
from model_zoo.masked.layers import with_input_channels
from model_zoo.masked.shielded import Shielded, with_stand_in

SHARPNESS = 10.0


class Thermometer(nn.Module):
    """Images (N, C, H, W) in [0, 1] to channels (N, C * levels, H, W): channel k of a pixel is 1 above k / levels.

    Source: Buckman, Roy, Raffel and Goodfellow, ICLR 2018 (BRRG18), Equation 6; 16 levels on MNIST, 15 on CIFAR-10.
    Deviations: none.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C * levels, H, W)."""
        return (self.above(x) > 0).to(x.dtype)

    def above(self, x: Tensor) -> Tensor:
        """(N, C * levels, H, W), by how much each pixel is above each level."""
        thresholds = torch.arange(self.levels, dtype=x.dtype, device=x.device) / self.levels
        return (x[:, :, None] - thresholds[:, None, None]).flatten(1, 2)

    def soft(self, x: Tensor) -> Tensor:
        """The same with a sigmoid in place of the step.

        Source: Athalye, Carlini and Wagner, arXiv:1802.00420, where x - k / levels is clipped to [0, 1]
        (in their program as a share of a level): below a level that has no gradient, and an attack leaves more images
        standing.
        """
        return (SHARPNESS * self.above(x)).sigmoid()

    def flat(self, x: Tensor) -> Tensor:
        """A stand-in without a gradient, as the encoding has none itself."""
        return self.above(x) * 0


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], levels: float) -> nn.Module:
    """The network behind the encoding, and trained so; its first convolution takes `levels` times the channels."""
    encoding = Thermometer(int(levels))
    return Shielded(Bpda(encoding, encoding.flat), with_input_channels(network, encoding.levels), trains_behind=True)


def surrogate(module: nn.Module) -> nn.Module:
    """BPDA: the encoding's values, the gradient of the smooth one."""
    assert isinstance(module, Shielded)
    assert isinstance(module.transform, Bpda)
    encoding = module.transform.forward_pass
    assert isinstance(encoding, Thermometer)
    return with_stand_in(module, encoding.soft)
