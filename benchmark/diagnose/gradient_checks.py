"""Checks of the gradient itself: is there one, does the loss saturate, does it say how the logits change."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.generators import seeded
from attacks.oracle import Classifier
from attacks.out_of_memory import is_out_of_memory
from attacks.threat_model import ThreatModel
from benchmark.diagnose.finding import Measured, share_check, unknown
from benchmark.diagnose.passes import BATCH, in_parts, margin
from benchmark.evaluation.gradient_flags import FEW, zero_gradients

DIRECTIONS, FIRST_STREAM = 16, 16
"""Random directions along which a gradient is compared with differences, and the stream that the first is of."""
WIDTHS = (0.01, 0.1)
"""Half the distance of the two points of a difference, as shares of epsilon: near by, and a step of an attack."""
WRONG = 0.5
"""The error from which on a gradient says less than half of how the logits change; of an unrelated one it is 0.7."""


def zero_gradient(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int = BATCH) -> Measured:
    """Images have a gradient that is not exactly zero.

    Args:
        x: (N, C, H, W) in [0, 1], classified correctly as y (N,).

    Source: Croce and Hein, arXiv:2003.01690 (a warning of AutoAttack); Pintor et al., arXiv:2106.09947.
    """
    try:
        parts = zip(x.split(batch_size), y.split(batch_size), strict=True)
        share = zero_gradients(model, parts)  # type: ignore[arg-type]  # any classifier
    except (InputError, RuntimeError) as error:
        return _without_gradient("zero-gradients", FEW, error)
    count = round(share * len(x) / 100)
    return share_check("zero-gradients", count, len(x), FEW, f"{count} of {len(x)} images have none")


def saturated(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int = BATCH) -> Measured:
    """Cross-entropy as everybody computes it has a gradient, so that attacks on it are not stopped by float32.

    Our own cross-entropy is continued where it saturates (`attacks.losses`), those of other programs are not.

    Source: Carlini and Wagner, arXiv:1608.04644 (defensive distillation); Pintor et al., arXiv:2106.09947.
    """

    def is_flat(x: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad(), seeded("diagnosis"):
            point = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(point).float(), y, reduction="sum"), point)
        return (gradient.flatten(1) == 0).all(1)

    try:
        count = int(in_parts(is_flat, batch_size, x, y).sum())
    except (InputError, RuntimeError) as error:
        return _without_gradient("saturated-loss", FEW, error)
    words = f"plain cross-entropy has no gradient on {count} of {len(x)} images"
    return share_check("saturated-loss", count, len(x), FEW, words)


def true_gradient(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    index: Tensor,
    *,
    seed: int,
    batch_size: int = BATCH,
    is_half: bool = False,
) -> Measured:
    """The gradient says how the logits change: near by, and over a step of an attack.

    Along random sign directions v, the margin's change between x - h v and x + h v is compared with 2 h g v. The error
    is sum |difference - predicted| / sum (|difference| + |predicted|): 0 where they agree, 1 where they have opposite
    signs or one of them is zero.

    Args:
        is_half: whether the model computes in 16 bits: then it cannot tell.

    Source: this project; that a wrong gradient is a sign of masking: Athalye et al., arXiv:1802.00420. The second width
        is a measure of local linearity, as in Qin et al., arXiv:1907.02610.
    """
    scale = threat.epsilon if threat.norm == "Linf" else threat.epsilon / x[0].numel() ** 0.5

    def wrong(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        draws = Draws.start(seed, index)
        return torch.stack([_error(model, x, y, draws, width * scale) for width in WIDTHS])

    if is_half:
        return unknown("true-gradient", "the model computes in 16 bits, which differences so small are rounded to")
    try:
        errors = in_parts(wrong, batch_size, x, y, index)
    except (InputError, RuntimeError) as error:
        return _without_gradient("true-gradient", 10.0, error)
    moved = errors[:, ~errors.isnan().all(0)].nan_to_num(0)  # elsewhere there is nothing to compare
    count, n = int((moved.amax(0) > WRONG).sum()), moved.shape[1]
    near, far = (float(error.mean()) for error in moved)
    words = (
        f"on {count} of {n} images differences are none of the gradient's (mean error {near:.2f}, {far:.2f}); "
        f"on {len(x) - n} the logits do not move and there is no gradient"
    )
    return share_check("true-gradient", count, n, 10.0, words)


def _without_gradient(check: str, margin: float, error: Exception) -> Measured:
    """That no gradient can be had, a fact; but for want of memory it is none."""
    if is_out_of_memory(error):
        raise error
    return Measured(check, 100.0, margin, None, "no gradient can be had")


def _error(model: Classifier, x: Tensor, y: Tensor, draws: Draws, width: float) -> Tensor:
    """(N,) how far the gradients are from differences of this half width; nan where both are zero."""
    centre = x.clamp(width, 1 - width)
    with torch.enable_grad():
        point = centre.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(margin(model, point, y).sum(), point)
    wrong, total = torch.zeros(len(x), device=x.device), torch.zeros(len(x), device=x.device)
    with torch.no_grad():
        for direction in range(DIRECTIONS):
            noise = draws.uniform(x.shape[1:], stream=FIRST_STREAM + direction)
            step = torch.where(noise < 0.5, -width, width)
            predicted = 2 * (step * gradient).flatten(1).sum(1)
            difference = margin(model, centre + step, y) - margin(model, centre - step, y)
            wrong += (difference - predicted).abs()
            total += difference.abs() + predicted.abs()
    return wrong / total
