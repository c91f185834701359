"""Stability training: the same prediction under Gaussian noise."""

from torch import Tensor, nn

from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.trades import objective


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float, sigma: float) -> Tensor:
    """CE(f(x), y) + beta * KL(p(x) || p(x')) with x' = x + sigma * n, clipped to [0, 1]; n is standard normal.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: weight of the divergence; 0 is natural training.
        sigma: standard deviation of the noise, in pixel scale.

    Returns: a scalar.
    Source: Zheng et al., arXiv:1604.04326 (ZSLG16 in Table 5 of TRADES); with a pool of unlabelled images
        RST_stab of Carmon et al., arXiv:1905.13736, Section 3.
    Deviations: none.
    """
    noisy = (x + sigma * ctx.draws.normal(x.shape[1:], stream=3)).clamp(0.0, 1.0)
    return objective(model(x), model(noisy), y, beta=beta)
