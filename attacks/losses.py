"""What attacks climb: per-sample objectives, (N, K) float32 logits and a per-image label to (N,) float32."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with class indices y (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor, *, kappa: float = 50.0) -> Tensor:
    """-relu(z_y - max_{c != y} z_c + kappa) with class indices y (N,).

    With kappa = 50 the relu rarely saturates, so an already misclassified image is pushed further.
    Source: Carlini and Wagner, arXiv:1608.04644, f_6, run under PGD as by Madry et al. (MadryLab/cifar10_challenge).
    """
    true_logit = logits.gather(1, y[:, None]).squeeze(1)
    other_logit = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return -F.relu(true_logit - other_logit + kappa)


def kl_divergence(logits: Tensor, clean_log_probabilities: Tensor) -> Tensor:
    """KL(p(x) || p(x')) for the clean log-probabilities (N, K) and the logits at x' (N, K).

    Source: the inner problem of TRADES, Zhang et al., arXiv:1901.08573, Equation 3.
    """
    return F.kl_div(F.log_softmax(logits, 1), clean_log_probabilities, reduction="none", log_target=True).sum(1)


LOSSES: Mapping[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin, "kl-divergence": kl_divergence}
