"""Random changes of training images that leave their labels as they are."""

import torch
from torch import Tensor, nn

from attacks.draws import Draws


def augment(x: Tensor, draws: Draws) -> Tensor:
    """Random crops after zero padding by an eighth of the side, and horizontal flips, drawn image by image.

    Args:
        x: (N, C, H, W), not modified.
    """
    n, _, height, width = x.shape
    pad = height // 8
    draw = draws.uniform((3,), stream=2)
    offset = (draw[:, :2] * (2 * pad + 1)).long()
    rows = offset[:, 0, None] + torch.arange(height, device=x.device)
    columns = offset[:, 1, None] + torch.arange(width, device=x.device)
    columns = torch.where(draw[:, 2, None] < 0.5, columns.flip(1), columns)
    padded = nn.functional.pad(x, [pad] * 4)
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
