"""Robust transfer: features of a robust source model, with a head for the task at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.architectures.head import features_and_logits, head_of
from model_zoo.defenses.context import TrainingContext, eval_mode


def head_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext) -> Tensor:  # noqa: ARG001 (nothing is crafted)
    """Mean clean cross-entropy, whose gradient reaches the head alone: the source's features stay as they are.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.

    Returns: a scalar.
    Source: Shafahi et al., arXiv:1905.08232; of an architecture NAME+mlp the head has a hidden layer.
    Deviations: none.
    """
    return F.cross_entropy(_read(model, x, train_features=False)[1], y)


def without_forgetting_loss(
    model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, lam: float, head_first: float
) -> Tensor:
    """Clean cross-entropy + lam * mean of ||z(x) - z0(x)||_1, z the features and z0 those of the source model.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        lam: weight of the distance.
        head_first: the fraction of the epochs that trains the head alone.

    Returns: a scalar.
    Source: Shafahi et al., arXiv:1905.08232, with the L1 norm of the authors' train_with_LWF.py.
    Deviations: none.
    """
    if ctx.epoch <= head_first * ctx.epochs:
        return head_loss(model, x, y, ctx)
    with torch.no_grad():
        before, _ = _read(ctx.first_stage, x)
    features, logits = _read(model, x)
    return F.cross_entropy(logits, y) + lam * (features - before).abs().sum(1).mean()


def _read(model: nn.Module, x: Tensor, *, train_features: bool = True) -> tuple[Tensor, Tensor]:
    """Features and logits, with the body in eval mode: its batch statistics are the source's."""
    head, is_training = head_of(model)[1], model.training
    with eval_mode(model):
        head.train(is_training)
        return features_and_logits(model, x, train_features=train_features)
