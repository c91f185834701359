"""How many images a trial of a model takes: as many as asked for of small ones, fewer of large ones."""

from torch import Tensor

PIXELS = 64 * 64
"""Of an image up to which none is spared."""
LEAST = 3
"""So many images a trial has at least; and an eighth of those that are asked for."""


def trial_size(x: Tensor, n: int) -> int:
    """At most n: so many images like x (N, C, H, W) as have the pixels of n images of 64 x 64, or the least.

    At 224 x 224 they are 3 of 8, 8 of 64 and 32 of 256.
    """
    height, width = x.shape[-2:]
    return min(n, max(LEAST, n // 8, n * PIXELS // (height * width)))
