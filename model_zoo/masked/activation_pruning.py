"""Stochastic activation pruning: small activations are dropped at random, so that gradients are noise."""

import copy
import math

import torch
from torch import Tensor, nn

from model_zoo.masked.layers import with_activations


class ActivationPruning(nn.Module):
    """ReLU, then each activation stays with the probability that draws in proportion to its size would meet it.

    What stays is divided by that probability, so that the mean is the activation itself. In train mode it is ReLU.

    Args:
        percent: how many draws, in percent of the number of activations.
        is_straight: whether the probabilities count as constants in the backward pass.

    Source: Dhillon et al., arXiv:1803.01442, Equations 3 to 5; SAP-100, on networks trained without it.
    Deviations: activations are dropped independently of each other, by the probability that the draws have.
    """

    def __init__(self, percent: float) -> None:
        super().__init__()
        self.percent, self.is_straight = percent, False

    def forward(self, h: Tensor) -> Tensor:
        """(N, ...) to (N, ...)."""
        h = h.relu()
        if self.training:
            return h
        draws = self.percent / 100 * math.prod(h.shape[1:])
        size = h.detach() if self.is_straight else h
        share = size / size.flatten(1).sum(1).clamp_min(1e-12).view(-1, *[1] * (h.ndim - 1))
        met = -torch.expm1(draws * torch.log1p(-share.clamp(0, 1 - 1e-6)))
        return h * (torch.rand_like(met) < met) / met.clamp_min(1e-12)


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], percent: float) -> nn.Module:
    """The network with pruning in place of every ReLU."""
    return with_activations(network, lambda: ActivationPruning(percent))


def surrogate(module: nn.Module) -> nn.Module:
    """The same pruning with a gradient that does not pass through the probabilities; the attack averages its draws.

    Source: Athalye, Carlini and Wagner, arXiv:1802.00420.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, ActivationPruning):
            part.is_straight = True
    return module
