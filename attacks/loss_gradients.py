"""The losses' gradients in the logits, in closed form: the operations of autograd's, to the bit, without the graph.

A step of an attack on a small network costs as much as the network does, so every operation counts. What is derived
here is `attacks.losses`; a loss that is not listed is left to autograd.
"""

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from attacks.losses import KAPPA, SATURATED

LossGradient = Callable[[Tensor, Tensor, bool], tuple[Tensor | None, Tensor]]
"""Logits (N, K) without a graph, labels, whether the loss is asked for: the loss (N,) or None, its gradient (N, K)."""

BELOW_SATURATED = float(torch.nextafter(torch.tensor(SATURATED), torch.tensor(-math.inf)))
"""`clamp_min` passes the gradient on at its bound; `threshold_backward` only beyond it."""


def cross_entropy(logits: Tensor, y: Tensor, valued: bool) -> tuple[Tensor | None, Tensor]:
    """As `losses.cross_entropy`: dL/dz_c = s p_c for c != y, where p is the softmax of the others, and -s for y."""
    column, tail = y.unsqueeze(1), 1 / (1 + math.exp(-SATURATED))
    others = logits.scatter(1, column, -math.inf)
    total = others.logsumexp(1, keepdim=True)
    odds = total - logits.gather(1, column)
    near_slope = torch.ops.aten.softplus_backward(_one(logits.device, logits.dtype), odds, 1, 20).sub_(tail)
    slope = torch.ops.aten.threshold_backward(near_slope, odds, BELOW_SATURATED).add_(tail)
    gradient = others.sub_(total).exp_().scatter_(1, column, -1.0).mul_(slope)
    if not valued:
        return None, gradient
    near = odds.clamp_min(SATURATED)
    value = torch.nn.functional.softplus(near) + (odds - near) / (1 + math.exp(-SATURATED))
    return value.squeeze(1), gradient


def difference(logits: Tensor, pair: Tensor, valued: bool) -> tuple[Tensor | None, Tensor]:
    """As `losses.difference`: -1 for y, 1 for t."""
    signs = _weights((-1.0, 1.0), logits.device, logits.dtype).expand(len(logits), 2)
    gradient = torch.zeros_like(logits).scatter_add_(1, pair, signs)
    if not valued:
        return None, gradient
    true_logit, target_logit = logits.gather(1, pair).unbind(1)
    return target_logit - true_logit, gradient


def margin(logits: Tensor, y: Tensor, valued: bool) -> tuple[Tensor | None, Tensor]:
    """As `losses.margin`: -1 for y, 1 for the likeliest other class, shared by those that tie; 0 where it saturates."""
    column = y.unsqueeze(1)
    ahead, gradient = _ahead(logits, column)
    near = torch.relu_(ahead + KAPPA)
    gradient.mul_(near > 0)
    return (-near.squeeze(1) if valued else None), gradient


def dlr(logits: Tensor, y: Tensor, valued: bool) -> tuple[Tensor | None, Tensor]:  # noqa: ARG001
    """As `losses.dlr`, -(z_y - max z_c) / S: the gradient of the quotient, S's own through the sorted logits."""
    ahead, pull = _ahead(logits, y.unsqueeze(1))
    spread, places = _spread(logits, (2,))
    value = -ahead.squeeze(1) / spread
    gradient = torch.zeros_like(logits)
    if places is not None:
        weights = _weights((-1.0, 1.0), logits.device, logits.dtype)
        gradient.scatter_(1, places, (value / spread).unsqueeze(1) * weights)
    return value, gradient.add_(pull.mul_((1 / spread).unsqueeze(1)))


def _ahead(logits: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """z_y - max_{c != y} z_c (N, 1), and the gradient (N, K) of its negative; column: (N, 1) class indices."""
    others = logits.scatter(1, column, -math.inf)
    best = others.amax(1, keepdim=True)
    share = (others == best).to(logits.dtype)
    share.div_(share.sum(1, keepdim=True))
    return logits.gather(1, column) - best, share.scatter_(1, column, -1.0)


def dlr_targeted(logits: Tensor, pair: Tensor, valued: bool) -> tuple[Tensor | None, Tensor]:  # noqa: ARG001
    """As `losses.dlr_targeted`, (z_t - z_y) / S: the gradient of the quotient, S's own through the sorted logits."""
    true_logit, target_logit = logits.gather(1, pair).unbind(1)
    ahead = target_logit - true_logit
    spread, places = _spread(logits, (2, 3))
    value = ahead / spread
    gradient = torch.zeros_like(logits)
    pull = (1 / spread).unsqueeze(1) * _weights((-1.0, 1.0), logits.device, logits.dtype)
    if places is not None:
        share = 1 / (places.shape[1] - 1)
        weights = _weights((-1.0, *[share] * (places.shape[1] - 1)), logits.device, logits.dtype)
        gradient.scatter_(1, places, (value / spread).unsqueeze(1) * weights)
    return value, gradient.scatter_add_(1, pair, pull)


def _spread(logits: Tensor, others: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """As `losses._spread`, with the classes (N, 1 + P) that it is made of, the largest first; None where it is 1."""
    ordered, classes = logits.sort(1, descending=True)
    there = slice(others[0], min(others[-1] + 1, logits.shape[1]))
    if logits.shape[1] <= others[0]:
        return torch.ones_like(ordered[:, 0]), None
    spread = (ordered[:, 0] - ordered[:, there].mean(1)).add_(1e-12)
    return spread, torch.cat([classes[:, :1], classes[:, there]], 1)


@functools.cache
def _one(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.ones((), device=device, dtype=dtype)


@functools.cache
def _weights(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype)


LOSS_GRADIENTS: Mapping[str, LossGradient] = {
    "cross-entropy": cross_entropy,
    "difference": difference,
    "dlr": dlr,
    "margin": margin,
    "dlr-targeted": dlr_targeted,
}
"""By the names of `losses.LOSSES`."""
