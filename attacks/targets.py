"""Which wrong class a targeted attack aims at."""

from torch import Tensor

from attacks.oracle import Oracle


def first_targets(oracle: Oracle, x: Tensor, y: Tensor, rank: Tensor, target: Tensor, steps: Tensor) -> Tensor:
    """The targets, chosen by the clean logits for images at their first step, kept for the others.

    Args:
        x: (N, C, H, W) clean images; y, rank, target, steps: (N,) of a targeted attack's state.
    """
    if 0 not in oracle.counts_of(steps):
        return target
    rows = (steps == 0).nonzero().squeeze(1)
    chosen = most_likely_others(oracle.logits(x[rows], rows=rows), y[rows], rank[rows])
    return target.index_copy(0, rows, chosen)


def most_likely_others(logits: Tensor, y: Tensor, rank: Tensor) -> Tensor:
    """The class that stands at place `rank` among the wrong ones, the likeliest first; after the last the first again.

    Args:
        logits: (N, K); y, rank: (N,), rank from 0.

    Returns: (N,) class indices.
    """
    wrong = logits.scatter(1, y[:, None], float("-inf"))
    order: Tensor = wrong.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, rank[:, None] % (logits.shape[1] - 1)).squeeze(1)
