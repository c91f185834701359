"""Which wrong class a targeted attack aims at."""

from torch import Tensor


def most_likely_others(logits: Tensor, y: Tensor, rank: Tensor) -> Tensor:
    """The class that stands at place `rank` among the wrong ones, the likeliest first.

    Args:
        logits: (N, K); y, rank: (N,), rank in [0, K - 2].

    Returns: (N,) class indices.
    """
    others = logits.scatter(1, y[:, None], float("-inf")).argsort(1, descending=True, stable=True)
    return others.gather(1, rank[:, None]).squeeze(1)
