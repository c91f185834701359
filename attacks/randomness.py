"""Whether a model answers at random: it is then judged by expectation, which is part of what its numbers mean."""

import torch
from torch import Tensor, nn

from attacks.spec import AttackSpec, ThirdParty

JUDGE_DRAWS = 20
"""Passes whose mean probabilities decide on a randomised model."""
EOT = 20
"""Passes that a query of a randomised model averages: as many as in the reference AutoAttack."""
SAME_ANSWER = 1e-6
"""Largest difference of two answers, relative to the largest logit, that is put down to the order of additions."""


def differ(first: Tensor, second: Tensor) -> bool:
    """Whether two answers (N, K) to the same images are two draws."""
    return not (first - second).abs().max() <= SAME_ANSWER * first.abs().max()  # nor is what is no number


@torch.no_grad()
def answers_at_random(model: nn.Module, x: Tensor) -> bool:
    """Whether two passes over some images differ. A model that cannot take them is left to the checks before a run."""
    try:
        first, second = model(x.clone()), model(x.clone())
    except Exception:  # the model may be the user's own code, and raise what it likes
        return False
    return isinstance(first, Tensor) and isinstance(second, Tensor) and differ(first, second)


def query_passes(attack: AttackSpec, *, source_randomized: bool, asked: int | None) -> int:
    """How many passes each query of an attack averages.

    Args:
        asked: by the user, of our own attacks; None for what the attack asks for, and `EOT` where the source is
            randomised. Third-party attacks ask as they like.
    """
    if isinstance(attack.method, ThirdParty):
        return 1
    return max(attack.eot, EOT if source_randomized else 1) if asked is None else asked
