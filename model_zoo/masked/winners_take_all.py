"""k-winners-take-all: only the largest activations pass, so that the network jumps everywhere."""

import math

import torch
from torch import Tensor, nn

from attacks.bpda import Bpda
from model_zoo.masked.layers import with_activations

DRAWS, RADIUS = 50, 0.03


class WinnersTakeAll(nn.Module):
    """Of each image the largest activations of a layer, the others zero.

    Args:
        share: which part of the activations passes, in (0, 1].

    Source: Xiao, Zhong and Zheng, arXiv:1905.10510, Equation 2; sparsity 0.1 and 0.2.
    Deviations: the network is trained with its final sparsity from the start.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        """(N, ...) to (N, ...)."""
        flat = h.flatten(1)
        count = math.ceil(self.share * flat.shape[1])
        least = flat.topk(count, dim=1, sorted=False).values.amin(1, keepdim=True)
        return torch.where(flat >= least, flat, 0.0).view_as(h)


class Averaged(nn.Module):
    """A network's mean logits over fixed points around each image: a smooth stand-in for one that jumps.

    Args:
        draws: how many points; radius: of the cube that they are drawn from, in pixel scale.
    """

    def __init__(self, network: nn.Module, *, draws: int, radius: float) -> None:
        super().__init__()
        self.network, self.draws, self.radius = network, draws, radius

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        draws = torch.rand((self.draws, 1, *x.shape[1:]), generator=torch.Generator().manual_seed(0))
        around = x + self.radius * (2 * draws - 1).to(x)
        logits: Tensor = self.network(around.flatten(0, 1))
        return logits.view(self.draws, len(x), -1).mean(0)


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], share: float) -> nn.Module:
    """The network with the winners in place of every ReLU, and trained so."""
    return with_activations(network, lambda: WinnersTakeAll(share))


def surrogate(module: nn.Module) -> nn.Module:
    """The network's values, and its gradient averaged over 50 points around the image.

    Source: Pintor et al., arXiv:2106.09947 (50 samples); that smoothing over points nearby breaks it: Tramer, Carlini,
        Brendel and Madry, arXiv:2002.08347 (from memory, unverified).
    """
    return Bpda(module, Averaged(module, draws=DRAWS, radius=RADIUS))
