"""Logistic regressions, many small ones at once: each tells one point's features from those of all others."""

import torch
from torch import Tensor

RIDGE, MOST_STEPS = 1e-4, 25
"""Of the squared weights, beside the summed loss of all points: so little that a plane which separates is found."""
CLOSE = 1e-6
SCALES = (1.0, 0.5, 0.25, 0.0)
"""Of a Newton step, the one with the least loss is taken; with 0.0 the regression has ended."""


def logistic_regressions(inside: Tensor, beyond: Tensor) -> Tensor:
    """(B, D) the directions in which logistic regressions see the point beyond, by Newton's method in float64.

    Args:
        inside: (B, P, D) features of the points of class 0; beyond: (B, D) of the one point of class 1.

    Returns: weights of the features as they are, of any length; the threshold is the caller's.
    """
    points = torch.cat([inside, beyond[:, None]], 1).double()
    centre, scale = points.mean(1, keepdim=True), points.std(1, keepdim=True).clamp_min(1e-9)
    standard = (points - centre) / scale
    basis = None
    if standard.shape[2] > standard.shape[1]:  # weights lie in the span of the points, which has fewer dimensions
        basis, within = torch.linalg.qr(standard.mT)
        standard = within.mT
    rows = torch.cat([standard, torch.ones_like(standard[..., :1])], 2)
    sign = torch.ones_like(rows[..., 0])
    sign[:, -1] = -1  # the loss is log(1 + exp(sign * score))
    ridge = torch.full_like(rows[:, 0], RIDGE)
    ridge[:, -1] = 1e-12  # the intercept is free
    weights = torch.zeros_like(rows[:, 0])
    scales = torch.tensor(SCALES, dtype=rows.dtype, device=rows.device)

    def loss_at(weights: Tensor) -> Tensor:
        score = (rows @ weights[:, :, None]).squeeze(2)
        return torch.nn.functional.softplus(sign * score).sum(1) + (ridge * weights**2).sum(1) / 2

    for _ in range(MOST_STEPS):
        wrong = (sign * (rows @ weights[:, :, None]).squeeze(2)).sigmoid()
        gradient = ((sign * wrong)[:, None] @ rows).squeeze(1) + ridge * weights
        curvature = rows.mT @ ((wrong * (1 - wrong))[:, :, None] * rows) + torch.diag_embed(ridge + 1e-12)
        step = torch.linalg.solve(curvature, gradient)
        losses = torch.stack([loss_at(weights - size * step) for size in SCALES], 1)
        best = losses.argmin(1)
        weights = weights - scales[best][:, None] * step
        if (losses[:, -1] - losses.amin(1) <= CLOSE * losses[:, -1]).all():
            break
    found = weights[:, :-1] if basis is None else (basis @ weights[:, :-1, None]).squeeze(2)
    direction: Tensor = found / scale.squeeze(1)
    return direction
