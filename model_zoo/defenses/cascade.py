"""Cascade adversarial training: one-step examples of its own, iterative ones of a model defended before."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.loop import take
from model_zoo.architectures.head import features_and_logits
from model_zoo.defenses.context import TrainingContext


def batch_loss(
    model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, weight: float, similarity: float
) -> Tensor:
    """(CE(f(x), y) + weight * CE(f(x'), y)) / (1 + weight) + similarity * mean of ||z(x) - z(x')||_2^2.

    One half of the x' is one step away on the model itself, the other half is crafted by PGD on the first stage's
    model; z are the features that the head reads.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        weight: of the adversarial cross-entropy.
        similarity: of the distance of the features.

    Returns: a scalar.
    Source: Na et al., arXiv:1708.02582, with its bidirectional loss, which moves both embeddings.
    Deviations: every image of the batch has an adversarial companion; the true label is climbed, where the paper
        descends to the least likely one; transferred examples are crafted anew in every epoch, not stored.
    """
    half = len(x) // 2
    own, others = (replace(ctx, draws=take(ctx.draws, rows)) for rows in (slice(half), slice(half, None)))
    one_step = own.craft(model, x[:half], y[:half], loss="cross-entropy", start="none", steps=1, rel_step_size=1.0)
    transferred = others.craft(ctx.first_stage, x[half:], y[half:], loss="cross-entropy", start="none")
    features, logits = features_and_logits(model, x)
    features_adv, logits_adv = features_and_logits(model, torch.cat([one_step, transferred]))
    losses = F.cross_entropy(logits, y) + weight * F.cross_entropy(logits_adv, y)
    return losses / (1 + weight) + similarity * (features - features_adv).square().sum(1).mean()
