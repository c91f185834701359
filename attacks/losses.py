"""What attacks climb: per-sample objectives, (N, K) float32 logits and a per-image label to (N,) float32."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

SATURATED = -14.0
"""Log-odds of the wrong classes below which the cross-entropy is continued by its tangent."""
KAPPA = 50.0
"""By how much an image may be misclassified until the margin loss climbs no further."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with class indices y (N,), which goes on along its tangent where it is below 1e-6.

    It is log(1 + exp(m)) of the log-odds m = log sum_{c != y} exp(z_c) - z_y of the wrong classes. In float32 the usual
    form has no gradient from m = -17 on, so that an attack on a confident network stands still; here the gradient
    points where it does, and only its length stops falling at m = -14. Nothing else that an attack does with the loss
    depends on its scale.
    """
    odds = log_odds(logits, y)
    near = odds.clamp_min(SATURATED)
    return F.softplus(near) + (odds - near) / (1 + math.exp(-SATURATED))


def probability(logits: Tensor, y: Tensor) -> Tensor:
    """The probability of all other classes, 1 - p_y, with class indices y (N,).

    On one pass it points where cross-entropy does. Over several draws of a randomised classifier its mean is 1 minus
    the mean of p_y, so its gradient points where that of -log(mean p_y) does, the loss of the smoothed classifier's own
    probabilities, while the mean of cross-entropy is that of each draw's logarithm. As there, it goes on along its
    tangent where the log-odds are below -14: draws so certain of y weigh 1e-6, and not less.
    Source: Salman et al., arXiv:1906.04584, Section 2.2 (SmoothAdv).
    """
    odds = log_odds(logits, y)
    near = odds.clamp_min(SATURATED)
    return near.sigmoid() + (odds - near) * math.exp(SATURATED) / (1 + math.exp(SATURATED)) ** 2


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log sum_{c != y} exp(z_c) - z_y with class indices y (N,): the logarithm of (1 - p_y) / p_y."""
    others = logits.scatter(1, y[:, None], float("-inf")).logsumexp(1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def cross_entropy_x10(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of ten times the logits, with class indices y (N,).

    Where a model's logits lie close together, the gradient of cross-entropy mixes all classes; by ten times the logits
    it points across the nearest boundary.
    Source: Hitaj, Pagnotta, Masi and Mancini, arXiv:2103.01914.
    """
    return cross_entropy(10 * logits, y)


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{c != y} z_c with class indices y (N,): positive while the image is classified correctly."""
    others = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return logits.gather(1, y[:, None]).squeeze(1) - others


def margin(logits: Tensor, y: Tensor, *, kappa: float = KAPPA) -> Tensor:
    """-relu(z_y - max_{c != y} z_c + kappa) with class indices y (N,).

    With kappa = 50 the relu rarely saturates, so an already misclassified image is pushed further.
    Source: Carlini and Wagner, arXiv:1608.04644, f_6, run under PGD as by Madry et al. (MadryLab/cifar10_challenge).
    """
    return -F.relu(logit_margin(logits, y) + kappa)


def kl_divergence(logits: Tensor, clean_log_probabilities: Tensor) -> Tensor:
    """KL(p(x) || p(x')) for the clean log-probabilities (N, K) and the logits at x' (N, K).

    Source: the inner problem of TRADES, Zhang et al., arXiv:1901.08573, Equation 3.
    """
    return F.kl_div(F.log_softmax(logits, 1), clean_log_probabilities, reduction="none", log_target=True).sum(1)


def difference(logits: Tensor, pair: Tensor) -> Tensor:
    """z_t - z_y for the pairs (y, t) (N, 2): negative while y is ahead of t."""
    true_logit, target_logit = logits.gather(1, pair).unbind(1)
    return target_logit - true_logit


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, -(z_y - max_{c != y} z_c) / (z_(1) - z_(3)), with class indices y (N,).

    Where there are two classes only, the difference itself: the ratio would be constant.
    Source: Croce and Hein, arXiv:2003.01690, Equation 6.
    """
    return -logit_margin(logits, y) / _spread(logits, (2,))


def dlr_targeted(logits: Tensor, pair: Tensor) -> Tensor:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) for the pairs (y, t) (N, 2); with three classes over z_(1) - z_(3).

    Source: Croce and Hein, arXiv:2003.01690, Equation 7.
    """
    return difference(logits, pair) / _spread(logits, (2, 3))


def _spread(logits: Tensor, places: Sequence[int]) -> Tensor:
    """(N,) the largest logit minus the mean of those at the given places, as far as there are so many; else 1."""
    ordered = logits.sort(1, descending=True).values
    there = [place for place in places if place < logits.shape[1]]
    return ordered[:, 0] - ordered[:, there].mean(1) + 1e-12 if there else torch.ones_like(ordered[:, 0])


LOSSES: Mapping[str, Loss] = {
    "cross-entropy": cross_entropy,
    "cross-entropy-x10": cross_entropy_x10,
    "probability": probability,
    "margin": margin,
    "kl-divergence": kl_divergence,
    "difference": difference,
    "dlr": dlr,
    "dlr-targeted": dlr_targeted,
}
FEATURES = "features"
"""The squared distance of a layer's features from those of the clean image, which is no function of logits: the input
of the last linear layer, or as `features:LAYER` the output of the layer of that name (`attacks/features.py`)."""
TARGETED_LOSSES = ("difference", "dlr-targeted")
"""Their labels are pairs (y, t) (N, 2) of the class and a target."""


def is_of_features(loss: str) -> bool:
    """Whether a loss is a distance of features, which takes the clean images in place of their labels."""
    return loss == FEATURES or (loss.startswith(f"{FEATURES}:") and bool(loss.removeprefix(f"{FEATURES}:")))


def is_loss(loss: object) -> bool:
    """Whether there is a loss of that name."""
    return isinstance(loss, str) and (loss in LOSSES or is_of_features(loss))
