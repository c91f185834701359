"""Several points of each image in one pass: how black-box searches ask, and how their answers are told apart."""

import torch
from torch import Tensor

from attacks.losses import logit_margin
from attacks.oracle import Oracle

AT_ONCE = 250
"""The most points of one pass, unless there are more images."""


def margins(oracle: Oracle, points: Tensor, y: Tensor) -> Tensor:
    """(N, P) logit margins of points (N, P, C, H, W) of each image, whose labels are y (N,)."""
    images = torch.arange(len(y), device=y.device)
    found = []
    for part in points.split(max(1, AT_ONCE // len(y)), 1):
        rows = images.repeat_interleave(part.shape[1])
        found.append(logit_margin(oracle.logits(part.flatten(0, 1), rows=rows), y[rows]).view(part.shape[:2]))
    return torch.cat(found, 1)


def gradient_by_pairs(oracle: Oracle, centre: Tensor, y: Tensor, vectors: Tensor, width: float) -> Tensor:
    """An estimate of the logit margin's gradient at centre (N, C, H, W), shaped as it, by two-sided differences.

    Args:
        vectors: (N, P, C, H, W) directions, P of each image; their entries have mean 0 and variance 1.
        width: how far along each of them the two points of a pair lie from the centre; they are clipped to [0, 1].
    """
    points = torch.cat([centre[:, None] + width * vectors, centre[:, None] - width * vectors], 1).clamp(0, 1)
    above, below = margins(oracle, points, y).chunk(2, 1)
    return ((above - below)[:, :, None, None, None] * vectors).mean(1) / (2 * width)


def sums_so_far(rows: Tensor, values: Tensor) -> Tensor:
    """Values (M, ...), each added to those that stand before it of the same image; rows: (M,) the images' numbers."""
    order = rows.argsort(stable=True)
    ordered, is_first = values[order], first_of_each(rows)[order]
    total = ordered.cumsum(0)
    before = (total - ordered)[is_first]
    return torch.empty_like(total).index_copy(0, order, total - before[is_first.cumsum(0) - 1])


def first_of_each(rows: Tensor) -> Tensor:
    """(M,) bool: where an image's number stands for the first time in rows (M,)."""
    if len(rows) < 2:
        return torch.ones_like(rows, dtype=torch.bool)
    order = rows.argsort(stable=True)
    ordered = rows[order]
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(is_first).index_copy(0, order, is_first)
