"""The nearest point of an L1 ball and of an L0 ball, each cut with the pixel range."""

import torch
from torch import Tensor

from attacks.scale import tolerance_of


def project_l1(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """(N, C, H, W) the nearest points of {z : |z - x|_1 <= epsilon, 0 <= z <= 1}, exactly.

    Each coordinate moves by its wish less lam, but not below 0 and not out of the pixel range. The sum of these moves
    falls in lam, piecewise linearly, so sorting the ends of the pieces gives the lam at which it is epsilon.

    Args:
        x_adv: (N, C, H, W), any numbers; x: (N, C, H, W) in [0, 1].

    Source: Croce and Hein, arXiv:2103.01208, Proposition 2.2; without the pixel range Duchi et al., ICML 2008.
    """
    wish = (x_adv.double() - x.double()).flatten(1)
    flat = x.double().flatten(1)
    size = wish.abs()
    room = torch.where(wish > 0, 1 - flat, flat)
    move = torch.minimum(size, room)
    over = move.sum(1) > epsilon
    if epsilon == 0:
        return x.clone()
    if over.any():
        lam = _threshold(size[over], room[over], epsilon)[:, None]
        move[over] = torch.minimum((size[over] - lam).clamp_min(0), room[over])
    moved = (flat + wish.sign() * move).to(x.dtype).clamp(0.0, 1.0)
    went = (moved.double() - flat).abs()
    outside = went.sum(1) > epsilon + tolerance_of(epsilon)
    if outside.any():  # of many pixels the rounding to float32 adds up: there each is rounded towards x
        nearer = torch.nextafter(moved, x.flatten(1))
        moved = torch.where(outside[:, None] & (went > move), nearer, moved)
    return moved.view_as(x)


def _threshold(size: Tensor, room: Tensor, epsilon: float) -> Tensor:
    """(N,) lam > 0 with sum_i clip(size_i - lam, 0, room_i) = epsilon, where that sum is more at lam = 0.

    The sum is that of max(size - lam, 0) less that of max(size - room - lam, 0).
    """
    ends = torch.cat([size, (size - room).clamp_min(0), size.new_zeros(len(size), 1)], 1)
    sign = torch.ones_like(ends)
    sign[:, size.shape[1] :] = -1
    sign[:, -1] = 0
    ends, order = ends.sort(1, descending=True)
    sign = sign.gather(1, order)
    slope, offset = sign.cumsum(1), (sign * ends).cumsum(1)
    reached = offset - ends * slope  # the sum at lam = ends, which grows along the row
    piece = (reached < epsilon).sum(1, keepdim=True) - 1
    return ((offset.gather(1, piece) - epsilon) / slope.gather(1, piece).clamp_min(1)).squeeze(1).clamp_min(0)


def project_l0(x_adv: Tensor, x: Tensor, pixels: float) -> Tensor:
    """(N, C, H, W) the nearest points in [0, 1] that differ in so many pixels at most, in any of their channels.

    Args: as for `project_l1`.
    """
    inside = x_adv.clamp(0.0, 1.0)
    gain = ((x_adv - x).square() - (x_adv - inside).square()).sum(1).flatten(1)
    kept = torch.zeros_like(gain).scatter_(1, gain.topk(min(int(pixels), gain.shape[1]), 1).indices, 1.0)
    return torch.where(kept.view(len(x), 1, *x.shape[2:]) > 0, inside, x)
