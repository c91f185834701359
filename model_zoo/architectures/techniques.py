"""Classical techniques as modules: a linear model, a decision tree, nearest neighbours. Others fit them.

Their weights are arrays of a state dict, so that a fitted model is a checkpoint like any other.
"""

import torch
from torch import Tensor, nn

TIE = 1e-4
"""What each class of a vote is worth less than the one before it: ties go to the first class, as in scikit-learn."""
LEAST = 1e-3
"""Stands beside a share of 0, whose logarithm is none."""


class Linear(nn.Module):
    """Logistic regression, or a linear support vector machine one class against all: logits that have a gradient.

    Args:
        pixels: of an image, all channels.
    """

    def __init__(self, num_classes: int, pixels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class DecisionTree(nn.Module):
    """A binary tree of comparisons of one pixel with a threshold, which has no gradient.

    Args:
        nodes: as many as it has room for. Node 0 is the root.

    Buffers: pixel (nodes,) int64, which one a node compares, -1 at a leaf; threshold (nodes,), up to which an image
    goes to the child `left` (nodes,), beyond to `right`; share (nodes, K), of the classes among the node's images.
    """

    def __init__(self, num_classes: int, nodes: int) -> None:
        super().__init__()
        self.pixel: Tensor
        self.threshold: Tensor
        self.left: Tensor
        self.right: Tensor
        self.share: Tensor
        whole = torch.full((nodes,), -1, dtype=torch.int64)
        self.register_buffer("pixel", whole)
        self.register_buffer("threshold", torch.zeros(nodes, dtype=torch.float64))
        self.register_buffer("left", whole.clone())
        self.register_buffer("right", whole.clone())
        self.register_buffer("share", torch.full((nodes, num_classes), 1 / num_classes))

    def leaf(self, x: Tensor) -> Tensor:
        """(N,) int64: the node at which each image (N, C, H, W) ends."""
        values, node = x.flatten(1).double(), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        while (inner := self.pixel[node] >= 0).any():
            pixel = self.pixel[node].clamp_min(0)
            goes_left = values.gather(1, pixel[:, None]).squeeze(1) <= self.threshold[node]
            node = torch.where(inner, torch.where(goes_left, self.left[node], self.right[node]), node)
        return node

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K): logarithms of the leaf's shares."""
        return (self.share[self.leaf(x)] + LEAST).log()


class NearestNeighbours(nn.Module):
    """A vote of the nearest images of a training set, which has no gradient.

    Args:
        images: of the training set; pixels: of an image, all channels.
        k: how many vote.

    Buffers: images (images, pixels) uint8, in steps of 1/255; labels (images,) int64.
    """

    def __init__(self, num_classes: int, images: int, pixels: int, k: int = 5) -> None:
        super().__init__()
        self.images: Tensor
        self.labels: Tensor
        self.classes, self.k = num_classes, min(k, images)
        self.register_buffer("images", torch.zeros((images, pixels), dtype=torch.uint8))
        self.register_buffer("labels", torch.zeros(images, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K): shares of the votes."""
        with torch.no_grad():
            nearest = self._distances(x).topk(self.k, dim=1, largest=False).indices
            votes = nn.functional.one_hot(self.labels[nearest], self.classes).float().mean(1)
            return votes - TIE * torch.arange(self.classes, device=x.device)

    def smoothed(self, x: Tensor, *, temperature: float) -> Tensor:
        """(N, K) logarithms of a vote of all images, weighted by a softmax of their squared distances, with a gradient.

        Source: Papernot et al., arXiv:1605.07277 (smoothed nearest neighbours, after Goldberger et al. 2004).
        """
        weights = (-self._distances(x).double() / temperature).softmax(1)  # those of other classes are small
        return (weights @ nn.functional.one_hot(self.labels, self.classes).double()).clamp_min(1e-300).log()

    def _distances(self, x: Tensor) -> Tensor:
        """(N, images) squared Euclidean distances."""
        known, asked = self.images.float() / 255, x.flatten(1).float()
        return asked.square().sum(1, keepdim=True) - 2 * asked @ known.T + known.square().sum(1)
