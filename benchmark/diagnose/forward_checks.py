"""Checks of the forward pass, which are AutoAttack's warnings: each a fact, with no chance in it."""

import torch
from torch import Tensor, nn

from benchmark.diagnose.finding import Measured, unknown
from benchmark.evaluation.model_flags import find_flags

FACTS = {
    "plain-forward": (
        ("dynamic", "train-mode", "stateful"),
        "takes gradients, or changes the model or its later answers",
    ),
    "logits": (("probabilities",), "returns probabilities, whose softmax cross-entropy takes once more"),
}
"""By check: the flags of `evaluation/model_flags.py` that it fails by, and what they say of the forward pass."""
RANDOM = ("randomized", "dropout")


def forward_checks(
    model: nn.Module, x: Tensor, *, judge_draws: int, eot: int, is_adaptive: bool = False
) -> list[Measured]:
    """One row a fact.

    Args:
        x: (N, C, H, W) in [0, 1].
        judge_draws: passes whose mean probabilities decide on the model; 0 where it is taken for a fixed one.
        eot: passes that each query of the attack averages.
        is_adaptive: whether the attack searches on a surrogate, which is there to go round what the pass does.

    Source: Croce and Hein, arXiv:2003.01690 (the warnings of their program); Carlini et al., arXiv:1902.06705.
    """
    with torch.no_grad():
        flags = set(find_flags(model, x, model(x), is_random=judge_draws > 0))
    found = [_deterministic(flags, judge_draws=judge_draws, eot=eot)]
    for check, (names, words) in FACTS.items():
        raised = bool(flags & set(names))
        if raised and is_adaptive and check == "plain-forward":
            found.append(unknown(check, f"{words}; the attack goes by a surrogate"))
        else:
            found.append(Measured(check, float(raised), 0.0, None, words if raised else "no warning"))
    return found


def _deterministic(flags: set[str], *, judge_draws: int, eot: int) -> Measured:
    """The model answers the same to the same images, or its randomness is known, and averaged on both sides.

    Athalye et al. do not object to randomness: they object to an attack that takes the gradient of one draw, and so
    mistakes noise for robustness, and demand the gradient of the expectation (EOT). Nor may one draw decide, which
    breaks images by chance, and saves them by chance. So a model that is handled as randomised passes: each of the
    attack's queries averages several passes, and the class of the mean probabilities over several passes decides. It
    fails where randomness shows in a model that is taken for a fixed one, and where a single draw is what is climbed or
    judged. What an average hides is in the rows of single draws and of the worst of 20.

    Source: Athalye, Carlini and Wagner, arXiv:1802.00420, Section 4.2; Carlini et al., arXiv:1902.06705.
    """
    if not flags & set(RANDOM):
        return Measured("deterministic", 0.0, 0.0, None, "no warning")
    if not judge_draws:
        words = "answers at random, or has dropout on, and is taken for a fixed model"
    elif judge_draws == 1 or eot == 1:
        side = "judged" if judge_draws == 1 else "climbed"
        words = f"answers at random, and a single draw is {side}: take an attack that averages several"
    else:
        words = f"answers at random: judged by its mean probabilities over {judge_draws} passes, queries average {eot}"
        return Measured("deterministic", 0.0, 0.0, None, words)
    return Measured("deterministic", 1.0, 0.0, None, words)
