"""The fixed images that a model is asked with before any number: what it can be asked, and what it answers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

N = 8


def probe_images(shape: Sequence[int]) -> Tensor:
    """(8, C, H, W) images in [0, 1] of a shape (C, H, W): noise and smooth ones in turn, dark to bright.

    A quarter of the pixels of noise are 0, and in the end 1, as in photographs and drawings.
    """
    generator = torch.Generator().manual_seed(0)
    noise = (2 * torch.rand((N, *shape), generator=generator, dtype=torch.float32) - 0.5).clamp(0, 1)
    coarse = torch.rand((N, shape[0], 4, 4), generator=generator, dtype=torch.float32)
    smooth = F.interpolate(coarse, size=tuple(shape[1:]), mode="bilinear")
    brightness = torch.linspace(0.3, 1.2, N, dtype=torch.float32).view(-1, 1, 1, 1)
    images = brightness * torch.where(torch.arange(N).view(-1, 1, 1, 1) % 2 == 0, noise, smooth)
    return images.clamp(0, 1)
