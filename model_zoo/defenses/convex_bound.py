"""The convex outer bound: training on the worst logits that the convex relaxation of the network allows."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.errors import InputError
from model_zoo.bounds.convex import margins
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.growth import grown, linf_epsilon


def batch_loss(
    model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, start: float, ramp: float, projections: float
) -> Tensor:
    """Mean cross-entropy of the negated lower bounds of all margins; epsilon grows linearly to the threat model's.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        start: epsilon before the first epoch, in pixel scale; no more than the threat model's.
        ramp: how long epsilon grows, as a fraction of all epochs.
        projections: random projections that estimate the norms over pixels; 0 computes them.

    Returns: a scalar.
    Raises: InputError for another norm, or a number of projections that there cannot be.
    Source: Wong and Kolter, arXiv:1711.00851, Equation 14 and Algorithm 1; locuslab/convex_adversarial
        examples/mnist.py; projections: Wong et al., arXiv:1805.12514, Section 3.2.
    Deviations: those of `model_zoo.bounds.convex`; one set of projections for each batch, drawn by its first image.
    """
    if projections < 0 or projections % 1:
        raise InputError(f"projections must be a whole number, 0 for exact norms, got {projections:g}")
    epsilon = linf_epsilon(ctx)
    first = min(start, epsilon)
    cauchy = None
    if projections:
        draws = Draws(ctx.draws.seed, ctx.draws.index[:1], ctx.draws.restart[:1], ctx.draws.step[:1])
        uniform = draws.uniform((int(projections), *x.shape[1:]), stream=4)[0]
        cauchy = (math.pi * (uniform - 0.5)).tan()
    return F.cross_entropy(-margins(model, x, y, first + grown(ctx, 0.0, ramp) * (epsilon - first), cauchy), y)
