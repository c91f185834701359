"""Gaussian-noise training: the base classifier of randomized smoothing (`model_zoo.bounds.smoothing` certifies it)."""

import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, sigma: float) -> Tensor:
    """Mean cross-entropy on images with Gaussian noise, a new draw for each image and epoch.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        sigma: standard deviation of the noise in pixel scale; 0 is natural training.

    Returns: a scalar.
    Source: Cohen et al., arXiv:1902.02918, Section 3.3; locuslab/smoothing code/train.py.
    Deviations: none; the noisy images are not clipped, as there.
    """
    return F.cross_entropy(model(x + sigma * ctx.draws.normal(x.shape[1:], stream=3)), y)
