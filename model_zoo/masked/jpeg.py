"""JPEG compression in front of a network: rounded coefficients of the cosine transform have no gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.masked.shielded import Shielded

SIDE = 8
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
"""The steps of quality 50: ITU-T T.81, Table K.1."""


class Jpeg(nn.Module):
    """What JPEG makes of an image at a quality.

    Args:
        quality: from 1 to 100, by which libjpeg scales the table of steps.

    Source: Das et al., arXiv:1705.02900, and Guo et al., arXiv:1711.00117 (quality 75); ITU-T T.81, Annex A.
    Deviations: every channel is compressed as luminance is, without a change of colour space.
    """

    def __init__(self, quality: int) -> None:
        super().__init__()
        scale = 5000 / quality if quality < 50 else 200 - 2 * quality
        steps = [min(max(math.floor((step * scale + 50) / 100), 1), 255) for step in LUMINANCE]
        angles = torch.arange(SIDE)[:, None] * (2 * torch.arange(SIDE) + 1) * math.pi / (2 * SIDE)
        cosines = angles.cos() / 2
        cosines[0] /= math.sqrt(2)
        self.steps: Tensor
        self.cosines: Tensor
        self.register_buffer("steps", torch.tensor(steps, dtype=torch.float32).view(SIDE, SIDE), persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same, in steps of 1/255."""
        height, width = x.shape[2:]
        levels = F.pad((255 * x).round() - 128, (0, -width % SIDE, 0, -height % SIDE), mode="replicate")
        blocks = levels.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
        kept = (self.cosines @ blocks @ self.cosines.T / self.steps).round() * self.steps
        back = (self.cosines.T @ kept @ self.cosines).permute(0, 1, 2, 4, 3, 5).reshape(levels.shape)
        return ((back[..., :height, :width].round() + 128) / 255).clamp(0, 1)


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], quality: float) -> nn.Module:
    """The network behind the compression."""
    return Shielded(Jpeg(int(quality)), network)
