"""Interval bound propagation: training on the worst logits that interval arithmetic allows."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.bounds.interval_bounds import margins
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.growth import grown, linf_epsilon


def batch_loss(
    model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, kappa: float, clean_start: float, ramp: float
) -> Tensor:
    """k * clean cross-entropy + (1 - k) * cross-entropy of the worst logits within interval bounds.

    After a clean start, epsilon grows from 0 to that of the threat model, and k falls from 1 to kappa, both linearly.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        kappa: weight of the clean part in the end, in [0, 1].
        clean_start, ramp: lengths of the two phases, as fractions of all epochs (the paper's warm-up and ramp-up).

    Returns: a scalar.
    Source: Gowal et al., arXiv:1810.12715, Equation 12; deepmind/interval-bound-propagation examples/train.py.
    Deviations: epsilon and k change from epoch to epoch, where the authors change them from step to step; bounds are
        without dropout.
    """
    growth, epsilon = grown(ctx, clean_start, ramp), linf_epsilon(ctx)
    clean = F.cross_entropy(model(x), y)
    worst = F.cross_entropy(-margins(model, x, y, growth * epsilon), y)
    k = 1 - growth * (1 - kappa)
    return k * clean + (1 - k) * worst
