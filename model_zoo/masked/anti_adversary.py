"""An optimisation at test time: each image is moved to where the network is surer of what it says anyway."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.bpda import Bpda

STEP_SIZE = 0.15


class AntiAdversary(nn.Module):
    """The network's logits after some sign steps down the cross-entropy of its own prediction.

    Args:
        steps: how many.

    Source: Alfarra et al., arXiv:2103.14347, Algorithm 1 (2 steps of 0.15).
    Deviations: none.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K); in train mode the network's own."""
        logits: Tensor = self.network(x + (0 if self.training else self.moved(x)))
        return logits

    def moved(self, x: Tensor) -> Tensor:
        """(N, C, H, W) what is added to the images; no gradient passes through it."""
        with torch.no_grad():
            label = self.network(x).argmax(1)
        move = torch.zeros_like(x)
        for _ in range(self.steps):
            with torch.enable_grad():
                point = (x.detach() + move).requires_grad_()
                loss = F.cross_entropy(self.network(point), label, reduction="sum")
                (slope,) = torch.autograd.grad(loss, point)
            move = move - STEP_SIZE * slope.sign()
        return move


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], steps: float) -> nn.Module:
    """The network with the optimisation in front of it."""
    return AntiAdversary(network, int(steps))


def surrogate(module: nn.Module) -> nn.Module:
    """BPDA: the model's values, and the gradient of the network without the optimisation.

    Source: Croce et al., arXiv:2202.13711, Section 4 (transfer from the static network).
    """
    assert isinstance(module, AntiAdversary)
    return Bpda(module, module.network)
