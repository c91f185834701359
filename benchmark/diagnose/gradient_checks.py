"""Checks of the gradient itself: is there one, does the loss saturate, does it say how the logits change."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.generators import seeded
from attacks.losses import logit_margin
from attacks.oracle import Classifier
from attacks.threat_model import ThreatModel
from benchmark.diagnose.finding import Measured, share_p
from benchmark.evaluation.gradient_flags import FEW, zero_gradients

DIRECTIONS = 16
"""Random directions along which a gradient is compared with differences."""
WIDTHS = (0.01, 0.1)
"""Half the distance of the two points of a difference, as shares of epsilon: near by, and a step of an attack."""
WRONG = 0.5
"""The error from which on a gradient says less than half of how the logits change; of an unrelated one it is 0.7."""


def zero_gradient(model: Classifier, x: Tensor, y: Tensor) -> Measured:
    """Images have a gradient that is not exactly zero.

    Args:
        x: (N, C, H, W) in [0, 1], classified correctly as y (N,).

    Source: Croce and Hein, arXiv:2003.01690 (a warning of AutoAttack); Pintor et al., arXiv:2106.09947.
    """
    try:
        share = zero_gradients(model, [(x, y)])  # type: ignore[arg-type]  # any classifier
    except (InputError, RuntimeError):
        return Measured("zero-gradients", 100.0, FEW, None, "no gradient can be had")
    count = round(share * len(x) / 100)
    return Measured("zero-gradients", share, FEW, share_p(count, len(x), FEW), f"{count} of {len(x)} images have none")


def saturated(model: Classifier, x: Tensor, y: Tensor) -> Measured:
    """Cross-entropy as everybody computes it has a gradient, so that attacks on it are not stopped by float32.

    Our own cross-entropy is continued where it saturates (`attacks.losses`), those of other programs are not.

    Source: Carlini and Wagner, arXiv:1608.04644 (defensive distillation); Pintor et al., arXiv:2106.09947.
    """
    try:
        with torch.enable_grad(), seeded("diagnosis"):
            point = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(point).float(), y, reduction="sum"), point)
    except RuntimeError:
        return Measured("saturated-loss", 100.0, FEW, None, "no gradient can be had")
    count = int((gradient.flatten(1) == 0).all(1).sum())
    words = f"plain cross-entropy has no gradient on {count} of {len(x)} images"
    return Measured("saturated-loss", 100 * count / len(x), FEW, share_p(count, len(x), FEW), words)


def true_gradient(
    model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, index: Tensor, *, seed: int
) -> Measured:
    """The gradient says how the logits change: near by, and over a step of an attack.

    Along random sign directions v, the margin's change between x - h v and x + h v is compared with 2 h g v. The error
    is sum |difference - predicted| / sum (|difference| + |predicted|): 0 where they agree, 1 where they have opposite
    signs or one of them is zero.

    Source: this project; that a wrong gradient is a sign of masking: Athalye et al., arXiv:1802.00420. The second width
        is a measure of local linearity, as in Qin et al., arXiv:1907.02610.
    """
    scale = threat.epsilon if threat.norm == "Linf" else threat.epsilon / x[0].numel() ** 0.5
    signs = torch.where(Draws.start(seed, index).uniform((DIRECTIONS, *x.shape[1:]), stream=7) < 0.5, -1.0, 1.0)
    try:
        errors = [_error(model, x, y, signs, width * scale) for width in WIDTHS]
    except RuntimeError:
        return Measured("true-gradient", 100.0, 10.0, None, "no gradient can be had")
    count = int((torch.stack(errors).amax(0) > WRONG).sum())
    near, far = (float(error.mean()) for error in errors)
    words = f"on {count} of {len(x)} images differences are none of the gradient's (mean error {near:.2f}, {far:.2f})"
    return Measured("true-gradient", 100 * count / len(x), 10.0, share_p(count, len(x), 10.0), words)


def _error(model: Classifier, x: Tensor, y: Tensor, signs: Tensor, width: float) -> Tensor:
    """(N,) how far the gradients are from differences of this half width."""
    centre = x.clamp(width, 1 - width)
    with torch.enable_grad(), seeded("diagnosis"):
        point = centre.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(logit_margin(model(point).float(), y).sum(), point)
    predicted = 2 * width * (signs * gradient[:, None]).flatten(2).sum(2)
    differences: list[Tensor] = []
    with torch.no_grad():
        for sign in signs.unbind(1):
            ends: Sequence[Tensor] = [_margin(model, centre + side * width * sign, y) for side in (1, -1)]
            differences.append(ends[0] - ends[1])
    difference = torch.stack(differences, 1)
    total = (difference.abs() + predicted.abs()).sum(1)
    return (difference - predicted).abs().sum(1) / total.clamp_min(torch.finfo(torch.float32).tiny)


def _margin(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """(N,) margins; a randomised model meets the same draws at every call: the randomness is held fixed."""
    with seeded("diagnosis"):
        return logit_margin(model(x).float(), y)
