"""What an attack found: of each image the first point that broke it, else the last that was judged."""

import torch
from torch import Tensor


class FoundPoints:
    """What was found of the images of an attack; `observe` learns of every judged point.

    Args:
        x: (N, C, H, W) the clean images.
    """

    def __init__(self, x: Tensor) -> None:
        self.x_adv = x.clone()
        self._broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def observe(self, rows: Tensor, points: Tensor, correct: Tensor) -> None:
        """rows: (M,) which images; points: (M, C, H, W); correct: (M,) bool, still classified correctly there."""
        open_ = ~self._broken[rows]
        self.x_adv[rows[open_]] = points[open_]
        self._broken[rows] |= ~correct
