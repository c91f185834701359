"""TRADES: clean accuracy traded against the stability of the prediction."""

import torch.nn.functional as F
from torch import Tensor, nn

from attacks.losses import kl_divergence
from model_zoo.defenses.context import TrainingContext


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, beta: float) -> Tensor:
    """CE(f(x), y) + beta * KL(p(x) || p(x')), where x' maximises the same divergence.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        beta: weight of the divergence, 1/lambda in the paper; 0 is natural training.

    Returns: a scalar.
    Source: Zhang et al., arXiv:1901.08573, Equation 5 and Algorithm 1; with a pool of unlabelled images RST_adv of
        Carmon et al., arXiv:1905.13736, Section 3.
    Deviations: the clean logits are computed once, where the authors' code computes them twice.
    """
    x_adv = ctx.craft(model, x, y, loss="kl-divergence", start="gaussian")
    return objective(model(x), model(x_adv), y, beta=beta)


def objective(logits: Tensor, logits_adv: Tensor, y: Tensor, *, beta: float) -> Tensor:
    """Clean cross-entropy plus beta times the mean divergence of the adversarial from the clean prediction.

    Args:
        logits, logits_adv: (N, K) of clean and adversarial images; y: (N,).

    Returns: a scalar.
    """
    divergence = kl_divergence(logits_adv, F.log_softmax(logits, 1))
    return F.cross_entropy(logits, y) + beta * divergence.mean()
