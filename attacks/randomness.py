"""Whether a model answers at random: it is then judged by expectation, which is part of what its numbers mean."""

import torch
from torch import Tensor, nn

from attacks.generators import seeded
from attacks.spec import AttackSpec, ThirdParty

PASSES = 8
"""Of which one at least must differ from the first: two draws may by chance be alike."""
JUDGE_DRAWS = 20
"""Passes whose mean probabilities decide on a randomised model."""
EOT = 20
"""Passes that a query of a randomised model averages: as many as in the reference AutoAttack."""
SAME_ANSWER = 1e-6
"""Largest difference of two answers, relative to the largest logit, that is put down to the order of additions."""


def differ(first: Tensor, second: Tensor) -> bool:
    """Whether two answers (N, K) to the same images are two draws."""
    if first.shape != second.shape:
        return True
    return not (first - second).abs().max() <= SAME_ANSWER * first.abs().max()  # nor is what is no number


@torch.no_grad()
def answers_at_random(model: nn.Module, *images: Tensor, passes: int = PASSES) -> bool:
    """Whether so many passes under other seeds differ, over one of some batches of images (N, C, H, W).

    Batches that the model cannot take, or whose logits are no numbers, say nothing: the checks before a run report it.
    """
    return any(_answers_at_random(model, x, passes) for x in images)


def _answers_at_random(model: nn.Module, x: Tensor, passes: int) -> bool:
    answers = []
    try:
        for number in range(passes):
            with seeded("randomness", number):
                answers.append(model(x.clone()))
    except Exception:  # the model may be the user's own code, and raise what it likes
        return False
    first, *others = answers
    if not isinstance(first, Tensor) or not first.isfinite().all():
        return False
    return any(differ(first, other) for other in others)


def query_passes(attack: AttackSpec, *, source_randomized: bool, asked: int | None) -> int:
    """How many passes each query of an attack averages.

    Args:
        asked: by the user, of our own attacks; None for what the attack asks for, and `EOT` where the source is
            randomised. Third-party attacks ask as they like.
    """
    if isinstance(attack.method, ThirdParty):
        return 1
    return max(attack.eot, EOT if source_randomized else 1) if asked is None else asked
