"""Max pooling between two linear functions of its inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model_zoo.bounds.interval_bounds import Box
from model_zoo.bounds.layers import MaxPool


def through_pool(rows: Tensor, pool: MaxPool, box: Box) -> tuple[Tensor, Tensor]:
    """Rows (N, R, C, H', W') of a maximum as rows of its inputs, and (N, R) what is added.

    The maximum is at least the input with the highest lower bound; at most the highest upper bound, and that input
    itself where no other input can exceed its lower bound.
    """
    lower, upper = box.lower, box.upper
    highest, where = F.max_pool2d(
        lower, pool.pool.kernel_size, pool.pool.stride, pool.pool.padding, pool.pool.dilation, return_indices=True
    )
    others = _windows(upper, pool, float("-inf"))
    places = _windows(torch.arange(lower[0, 0].numel(), device=lower.device).view(1, 1, *lower.shape[2:]), pool, -1)
    others = others.masked_fill(places == where.unsqueeze(2), float("-inf")).amax(2)
    is_known = others <= highest
    above, below = rows.clamp_min(0), rows.clamp_max(0)
    ceiling = torch.where(is_known, 0.0, pool(upper))
    offset = (below.flatten(2) @ ceiling.flatten(1).unsqueeze(2)).squeeze(2)
    taken = (above + torch.where(is_known.unsqueeze(1), below, 0.0)).flatten(3)
    spread = rows.new_zeros(*rows.shape[:3], lower[0, 0].numel())
    spread = spread.scatter_add(3, where.flatten(2).unsqueeze(1).expand(-1, rows.shape[1], -1, -1), taken)
    return spread.unflatten(3, lower.shape[2:]), offset


def _windows(v: Tensor, pool: MaxPool, padding: float) -> Tensor:
    """(N, C, window, H', W') what each window of a pooling sees of v (N, C, H, W)."""
    sizes = [
        size if isinstance(size, (tuple, list)) else (size, size)
        for size in (pool.pool.kernel_size, pool.pool.stride, pool.pool.padding, pool.pool.dilation)
    ]
    (height, width), stride, (top, left), dilation = sizes
    v = F.pad(v, (left, left, top, top), value=padding)
    rows = _starts(v.shape[2], height, stride[0], dilation[0], v.device)
    columns = _starts(v.shape[3], width, stride[1], dilation[1], v.device)
    seen = v[:, :, rows][..., columns]  # (N, C, H', height, W', width)
    return seen.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def _starts(size: int, window: int, stride: int, dilation: int, device: torch.device) -> Tensor:
    """(places, window) what each window along one axis sees."""
    first = torch.arange(0, size - dilation * (window - 1), stride, device=device)
    return first.unsqueeze(1) + dilation * torch.arange(window, device=device)
