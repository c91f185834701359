"""Terms of a gradient step that make an example transfer: queries of transformed images, and a smoothed gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle

SMALLEST = 0.9
"""The smallest share of an image's side that a transformed query shows, the rest being black."""


def diverse_gradient(oracle: Oracle, x: Tensor, y: Tensor, draws: Draws, *, probability: float, stream: int) -> Tensor:
    """The gradient at x of the cross-entropy of images that are shrunk and moved at random.

    Args:
        x: (N, C, H, W); y: (N,) class indices.
        draws: of the images at their step. stream: as of `Draws.uniform`.
        probability: that an image is transformed at all.

    Returns: (N, C, H, W).
    Source: Xie et al., arXiv:1803.06978, Section 3.2: resized to between 0.9 and 1 of its size and padded with zeros.
    Deviations: each image has its own size and place, where the authors' batches share one; sizes are no whole pixels.
    """
    share, across, down, chance = draws.uniform((4,), stream=stream).unbind(1)
    size = torch.where(chance < probability, SMALLEST + (1 - SMALLEST) * share, 1.0)
    room = 1 - size
    offsets = [(2 * place - 1) * room for place in (across, down)]  # of the centre, in units of half a side
    inverse = torch.stack(
        [
            torch.stack([1 / size, 0 * size, -offsets[0] / size], 1),
            torch.stack([0 * size, 1 / size, -offsets[1] / size], 1),
        ],
        1,
    )
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        grid = F.affine_grid(inverse.to(x), list(x.shape), align_corners=False)
        seen = F.grid_sample(point, grid, align_corners=False)
    _, gradient = oracle.loss_and_gradient(seen.detach(), y, "cross-entropy")
    (back,) = torch.autograd.grad(seen, point, gradient)
    return back


def smoothed(gradient: Tensor, side: int) -> Tensor:
    """A gradient (N, C, H, W) averaged over neighbours by a Gaussian kernel of `side` pixels that ends at 3 sigma.

    Source: Dong et al., arXiv:1904.02884, Section 3.2 (side 15 for images of 299 pixels).
    Deviations: none.
    """
    places = torch.linspace(-3, 3, side, dtype=gradient.dtype, device=gradient.device)
    line = torch.exp(-(places**2) / 2)
    square = torch.outer(line, line) / line.sum() ** 2
    channels = gradient.shape[1]
    weights = square.expand(channels, 1, side, side)
    return F.conv2d(gradient, weights, padding=side // 2, groups=channels)
