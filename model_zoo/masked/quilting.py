"""Image quilting in front of a network: every patch is replaced by the nearest of clean patches of the training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.bpda import Bpda, zero
from model_zoo.masked.ring_buffer import oldest_rows
from model_zoo.masked.shielded import Shielded

CAPACITY, GROUP = 2000, 4096


class Quilting(nn.Module):
    """Images made of patches of other images: each patch of a grid gives way to the nearest of a database.

    Args:
        shape: (C, H, W) of an image; side: of a patch, in pixels.

    Source: Guo, Rana, Cisse and van der Maaten, arXiv:1711.00117, Section 3.2 (patches of 5 x 5, a million of them).
    Deviations: the database has 2,000 patches, the last ones of the training; patches do not overlap and are not cut
    along a seam; the nearest one is taken, not one of the ten nearest at random, so that the model is not randomised.
    """

    def __init__(self, shape: tuple[int, int, int], side: int) -> None:
        super().__init__()
        self.side = side
        self.patches: Tensor
        self.place: Tensor
        self.register_buffer("patches", torch.zeros(CAPACITY, shape[0] * side * side))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same."""
        cut = self._cut(x)
        nearest = torch.cat([self._nearest(some) for some in cut.reshape(-1, cut.shape[2]).split(GROUP)])
        return self._joined(self.patches[nearest].view_as(cut), x.shape)

    def _nearest(self, patches: Tensor) -> Tensor:
        """(M,) rows of the database, of patches (M, D)."""
        far = torch.cdist(patches, self.patches, compute_mode="donot_use_mm_for_euclid_dist")
        return far.argmin(1)

    def _cut(self, x: Tensor) -> Tensor:
        """(N, P, D) patches of a grid, of images (N, C, H, W) whose last rows and columns are repeated to fill it."""
        down, right = (-size % self.side for size in x.shape[2:])
        padded = F.pad(x, (0, right, 0, down), mode="replicate")
        return F.unfold(padded, self.side, stride=self.side).transpose(1, 2)

    def _joined(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """Images of a shape (N, C, H, W), of their patches (N, P, D)."""
        height, width = shape[2:]
        whole = (height + -height % self.side, width + -width % self.side)
        return F.fold(patches.transpose(1, 2), whole, self.side, stride=self.side)[..., :height, :width]

    @torch.no_grad()
    def own_loss(self, x: Tensor, _y: Tensor) -> Tensor:
        """It learns by heart: the batch's patches take the place of the oldest. There is nothing to minimise."""
        new = self._cut(x).flatten(0, 1)[-CAPACITY:]
        self.patches[oldest_rows(self.place, len(new), CAPACITY)] = new
        return torch.zeros((), device=x.device)


def build(network: nn.Module, _classes: int, shape: tuple[int, int, int], side: float) -> nn.Module:
    """The network behind the quilting, which has no gradient: it chooses."""
    return Shielded(Bpda(Quilting(shape, int(side)), zero), network)
