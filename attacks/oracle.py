"""The classifier as an attack may use it: logits, or a per-image loss with its image gradient, counted."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.losses import LOSSES
from attacks.threat_model import ThreatModel

Classifier = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, K)."""


@dataclass(frozen=True)
class Query:
    """What was asked about some images of a batch.

    Args:
        points: (M, C, H, W) where the classifier was asked.
        logits: (M, K) its answers.
        rows: (M,) which images of the batch they belong to; None for all of them.
        backwards: how many gradients were taken of each image.
    """

    points: Tensor
    logits: Tensor
    rows: Tensor | None
    backwards: int


Watch = Callable[[Query], None]


class Oracle:
    """Answers an attack's queries about one classifier under one threat model.

    Gradients are taken with respect to the images only, in the search precision; logits, losses and gradients come
    back in float32.

    Args:
        classifier: in the mode in which it is attacked; neither its mode nor its parameters are changed.
        threat: what the attack may change.
        precision: of the search, float32 or bfloat16 (by autocast). Judging is not the oracle's business.
        watch: called with every query; how the loop counts passes, and learns of misclassified points for nothing.
        demands_finite: whether a gradient that is not finite is an error: an attack stands still there, and looks weak.

    `forwards` and `backwards` count the images that passed.
    """

    def __init__(
        self,
        classifier: Classifier,
        threat: ThreatModel,
        *,
        precision: torch.dtype = torch.float32,
        watch: Watch | None = None,
        demands_finite: bool = False,
    ) -> None:
        self.threat = threat
        self.forwards = 0
        self.backwards = 0
        self._classifier = classifier
        self._precision = precision
        self._watch = watch
        self._demands_finite = demands_finite

    def logits(self, x: Tensor, *, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits; one forward pass an image. `rows` tells which images of the batch x belongs to, if not all."""
        with torch.no_grad():
            return self._query(x, rows, backwards=0)

    def loss_and_gradient(
        self, x: Tensor, y: Tensor, loss: str, *, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A per-image loss (N,) and its gradient (N, C, H, W) at x; one forward and one backward pass an image.

        Args:
            x: (N, C, H, W) in [0, 1], not modified.
            y: per-image label, as the loss understands it.
            loss: a name of `attacks.losses.LOSSES`.
            rows: which images of the batch x belongs to; None for all of them.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = LOSSES[loss](self._query(x, rows, backwards=1), y)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        self._check(gradient)
        return value.detach(), gradient

    def logits_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) logits and their gradients (N, K, C, H, W); one forward and K backward passes an image."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self._query(x, None, backwards=-1)
            rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in logits.unbind(1)]
        jacobian = torch.stack(rows, 1)
        self._check(jacobian)
        return logits.detach(), jacobian

    def _check(self, gradient: Tensor) -> None:
        if self._demands_finite and not gradient.isfinite().all():
            raise InputError(
                "expected finite gradients, got NaN or infinity, with which no attack gets anywhere; mend the model's "
                "backward pass (a root or a logarithm of 0, a division by 0, torch.where around one) or its scale"
            )

    def _query(self, x: Tensor, rows: Tensor | None, *, backwards: int) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == torch.bfloat16):
            logits = self._classifier(x).float()
        backwards = logits.shape[1] if backwards < 0 else backwards
        self.forwards += len(x)
        self.backwards += len(x) * backwards
        if self._watch is not None:
            self._watch(Query(x.detach(), logits.detach(), rows, backwards))
        return logits


class CountingClassifier(nn.Module):
    """A classifier for third-party attacks, which call it as they like: counts the passes of all images.

    `forwards` and `backwards` count images that passed through; a second gradient from one forward pass counts as a
    second backward pass. Third parties may call `.backward()`, so the classifier's parameters should be frozen.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self._classifier = classifier
        self.forwards = 0
        self.backwards = 0
        self.training = False  # of this wrapper alone, which third parties look at; the classifier keeps its mode

    def forward(self, x: Tensor) -> Tensor:
        logits = self._classifier(x).float()
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
