"""The check of the boundary: the margin of the logits is zero where the class changes, and so says how near that is."""

import torch
from torch import Tensor

from attacks.oracle import Classifier
from benchmark.diagnose.finding import Measured, share_check, unknown
from benchmark.diagnose.passes import BATCH, in_parts, margin

HALVINGS = 22
"""Of the way from one image to the other; what is left of it is near the resolution of float32."""
JUMP = 0.1
"""The share of the margins at both images that the margin may jump by."""


def boundary(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int = BATCH) -> Measured:
    """The margin is continuous where the class changes.

    On the straight way to the next image of another class the change is found by halving. A margin that falls to zero
    there is what all attacks by gradients and scores go by; one that jumps says nothing of how near the boundary is, as
    where a vote, a rounding or another network decides.

    Args:
        x: (N, C, H, W) in [0, 1], classified correctly as y (N,).

    Source: this project.
    """
    other = _of_another_class(y)
    if other is None:
        return unknown("boundary", "all images are of one class")

    def jumps(x: Tensor, y: Tensor, there: Tensor) -> Tensor:
        right, wrong = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)

        def at(share: Tensor) -> Tensor:
            return margin(model, x + share.view(-1, 1, 1, 1) * (there - x), y)

        for _ in range(HALVINGS):
            middle = (right + wrong) / 2
            is_right = at(middle) > 0
            right, wrong = torch.where(is_right, middle, right), torch.where(is_right, wrong, middle)
        whole = at(torch.zeros_like(right)) - at(torch.ones_like(right))
        return at(right) - at(wrong) > JUMP * whole

    with torch.no_grad():
        count = int(in_parts(jumps, batch_size, x, y, x[other]).sum())
    words = f"on {count} of {len(x)} ways to an image of another class the margin jumps where the class changes"
    return share_check("boundary", count, len(x), 5.0, words)


def _of_another_class(y: Tensor) -> Tensor | None:
    """(N,) for each image the next one of another class, round the end; None where there is none."""
    begins = (y != y.roll(1)).nonzero().flatten()  # where a run of one class does
    if not len(begins):
        return None
    return begins[torch.searchsorted(begins, torch.arange(len(y), device=y.device), right=True) % len(begins)]
