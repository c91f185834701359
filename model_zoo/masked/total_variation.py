"""Total variation minimisation in front of a network: the image is replaced by a smoother one near it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.bpda import Bpda, zero
from model_zoo.masked.shielded import Shielded, with_stand_in

STEPS, STEP_SIZE = 30, 0.25


class TotalVariation(nn.Module):
    """argmin over z of weight * TV(z) + ||z - x||^2 / 2, by a fixed number of steps of its dual.

    Args:
        weight: of the total variation.

    Source: Guo, Rana, Cisse and van der Maaten, arXiv:1711.00117, Equation 2 (weight 0.03); the steps: Chambolle,
    Journal of Mathematical Imaging and Vision 20, 2004, Equation 9.
    Deviations: no pixel is dropped at random before, so that the model is not randomised.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same."""
        dual = torch.zeros((2, *x.shape), dtype=x.dtype, device=x.device)
        for _ in range(STEPS):
            slope = _gradient(_divergence(dual) - x / self.weight)
            length = slope.square().sum(0).sqrt()
            dual = (dual + STEP_SIZE * slope) / (1 + STEP_SIZE * length)
        return (x - self.weight * _divergence(dual)).clamp(0, 1)


def _gradient(z: Tensor) -> Tensor:
    """(2, N, C, H, W) the forward differences of (N, C, H, W), zero at the far edges."""
    return torch.stack([F.pad(z.diff(dim=2), (0, 0, 0, 1)), F.pad(z.diff(dim=3), (0, 1))])


def _divergence(dual: Tensor) -> Tensor:
    """(N, C, H, W), minus the adjoint of `_gradient`."""
    down, right = dual[0, ..., :-1, :], dual[1, ..., :-1]
    vertical = F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0))
    return vertical + F.pad(right, (0, 1)) - F.pad(right, (1, 0))


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], weight: float) -> nn.Module:
    """The network behind the minimisation, which gives no gradient: the authors' runs outside of autograd."""
    return Shielded(Bpda(TotalVariation(weight), zero), network)


def surrogate(module: nn.Module) -> nn.Module:
    """BPDA with the identity. Source: Athalye, Carlini and Wagner, arXiv:1802.00420."""
    return with_stand_in(module)
