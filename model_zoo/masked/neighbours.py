"""Nearest neighbours among images of the training: their mean prediction, which has no gradient."""

import torch
from torch import Tensor, nn

from attacks.bpda import Bpda, zero
from model_zoo.masked.ring_buffer import oldest_rows

CAPACITY, SHARPNESS, LEAST = 1000, 20.0, 1e-3


class Neighbours(nn.Module):
    """The logarithm of the mean prediction of those images of a database whose features are nearest.

    The features are the network's logits, to unit length. The database holds the last images of the training, by the
    features that the network had when it saw them.

    Args:
        k: how many neighbours.

    Source: Dubey et al., arXiv:1903.01612 (50 neighbours, weighted alike), at a small scale.
    Deviations: the database has 1,000 images; features are those of the last layer.
    """

    def __init__(self, network: nn.Module, classes: int, k: int) -> None:
        super().__init__()
        self.network, self.k = network, k
        self.features: Tensor
        self.predictions: Tensor
        self.place: Tensor
        self.register_buffer("features", torch.zeros(CAPACITY, classes))
        self.register_buffer("predictions", torch.full((CAPACITY, classes), 1 / classes))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K); in train mode the network's own."""
        logits: Tensor = self.network(x)
        return logits if self.training else Bpda(self.voted, zero)(logits)

    def voted(self, logits: Tensor) -> Tensor:
        """(N, K) the logarithm of the neighbours' mean prediction, of the network's logits (N, K)."""
        nearest = self._likeness(logits).topk(self.k, dim=1).indices
        votes = self.predictions[nearest].mean(1)
        return (votes + LEAST).log()

    def softly_voted(self, logits: Tensor) -> Tensor:
        """The same with every image of the database as a neighbour, weighted by a softmax of its likeness."""
        votes: Tensor = (SHARPNESS * self._likeness(logits)).softmax(1) @ self.predictions
        return (votes + LEAST).log()

    def _likeness(self, logits: Tensor) -> Tensor:
        """(N, CAPACITY) the cosine of the angle between features."""
        likeness: Tensor = _to_unit_length(logits) @ self.features.T
        return likeness

    @torch.no_grad()
    def own_loss(self, x: Tensor, _y: Tensor) -> Tensor:
        """It learns by heart: the batch takes the place of the oldest in the database. There is nothing to minimise."""
        logits = self.network(x)
        rows = oldest_rows(self.place, len(x), CAPACITY)
        self.features[rows], self.predictions[rows] = _to_unit_length(logits), logits.softmax(1)
        return torch.zeros((), device=x.device)


def _to_unit_length(features: Tensor) -> Tensor:
    length: Tensor = features.norm(dim=1, keepdim=True)
    return features / length.clamp_min(1e-12)


class SoftNeighbours(nn.Module):
    """The votes' values, and the gradient of the soft ones."""

    def __init__(self, model: Neighbours) -> None:
        super().__init__()
        self.network, self.vote = model.network, Bpda(model.voted, model.softly_voted)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.vote(self.network(x))
        return logits


def build(network: nn.Module, classes: int, _shape: tuple[int, int, int], k: float) -> nn.Module:
    """The network with a database."""
    return Neighbours(network, classes, int(k))


def surrogate(module: nn.Module) -> nn.Module:
    """BPDA: soft votes of the whole database. Source: Sitawarin and Wagner, arXiv:1903.08333, Section IV."""
    assert isinstance(module, Neighbours)
    return SoftNeighbours(module)
