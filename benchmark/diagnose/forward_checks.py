"""Checks of the forward pass, which are AutoAttack's warnings: each a fact, with no chance in it."""

import torch
from torch import Tensor, nn

from benchmark.diagnose.finding import Measured
from benchmark.evaluation.model_flags import find_flags

FACTS = {
    "deterministic": (("randomized", "dropout"), "answers at random: judged by its mean probabilities over 20 passes"),
    "plain-forward": (
        ("dynamic", "train-mode", "stateful"),
        "takes gradients, or changes the model or its later answers",
    ),
    "logits": (("probabilities",), "returns probabilities, whose softmax cross-entropy takes once more"),
}
"""By check: the flags of `evaluation/model_flags.py` that it fails by, and what they say of the forward pass."""


def forward_checks(model: nn.Module, x: Tensor, *, is_random: bool) -> list[Measured]:
    """One row a fact.

    Args:
        x: (N, C, H, W) in [0, 1]. is_random: whether the model is known to answer at random.

    Source: Croce and Hein, arXiv:2003.01690 (the warnings of their program); Carlini et al., arXiv:1902.06705.
    """
    with torch.no_grad():
        flags = set(find_flags(model, x, model(x), is_random=is_random))
    return [
        Measured(check, float(bool(flags & set(names))), 0.0, None, words if flags & set(names) else "no warning")
        for check, (names, words) in FACTS.items()
    ]
