"""The classifier as an attack may use it: logits, or a per-image loss with its image gradient, counted."""

from collections.abc import Callable, Set
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.features import features_and_logits
from attacks.loss_gradients import LOSS_GRADIENTS
from attacks.losses import FEATURES, LOSSES, is_of_features
from attacks.threat_model import ThreatModel

Classifier = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, K)."""


@dataclass(frozen=True)
class Query:
    """What was asked about some images of a batch.

    Args:
        points: (M, C, H, W) where the classifier was asked; under a spatial threat model (M, 3) what these images are
            made of.
        logits: (M, K) its answers.
        rows: (M,) which images of the batch they belong to; None for all of them.
        backwards, forwards: how many gradients were taken, and passes made, of each image.
        loss: (M,) the loss that was asked for, averaged as the logits are; None where logits were.
    """

    points: Tensor
    logits: Tensor
    rows: Tensor | None
    backwards: int
    forwards: int = 1
    loss: Tensor | None = None


Watch = Callable[[Query], None]
CHECK_EVERY = 50
"""After how many gradients it is found out whether all of them were finite: the answer waits for the device."""

NO_LOSS = torch.empty(0)
"""In place of a loss that nobody asked for."""

Reads = Callable[[Tensor, Tensor | None], Tensor]
"""Logits (M, K') that a classifier returned and which images of the batch (M,) they are of, to logits (M, K)."""


class Oracle:
    """Answers an attack's queries about one classifier under one threat model.

    Gradients are taken with respect to the images only, in the search precision; logits, losses and gradients come
    back in float32.

    Args:
        classifier: in the mode in which it is attacked; neither its mode nor its parameters are changed.
        threat: what the attack may change.
        precision: of the search, float32 or bfloat16 (by autocast). Judging is not the oracle's business.
        eot: how many passes each answer is the mean of: expectation over transformation, for randomised classifiers.
            Source: Athalye et al., arXiv:1707.07397, Equation 2.
        watch: called with every query; how the loop counts passes, and learns of misclassified points for nothing.
        reads: what an attack is told of the logits that the classifier returned; None for all that they say.
        demands_finite: whether a gradient that is not finite is an error: an attack stands still there, and looks weak.
            It is raised a few gradients later, and at the latest by `settle`, which who demands it calls in the end.
        tells_losses: whether who watches is told losses that the attack itself does not ask for.

    `forwards` and `backwards` count the images that passed. `steps_taken` are the step counts that the images of the
    batch are at, where whoever advances them knows; None where only the state's tensor tells.
    """

    def __init__(
        self,
        classifier: Classifier,
        threat: ThreatModel,
        *,
        precision: torch.dtype = torch.float32,
        eot: int = 1,
        watch: Watch | None = None,
        reads: Reads | None = None,
        demands_finite: bool = False,
        tells_losses: bool = True,
    ) -> None:
        self.threat = threat
        self.forwards = 0
        self.backwards = 0
        self.steps_taken: Set[int] | None = None
        self._classifier = classifier
        self._precision = precision
        self._eot = eot
        self._watch = watch
        self._reads = reads
        self._demands_finite = demands_finite
        self._tells_losses = tells_losses
        self._extremes: list[Tensor] = []

    def counts_of(self, steps: Tensor) -> Set[int]:
        """The step counts in a state's `steps` (N,); the device is asked only where nobody knows them."""
        return set(steps.tolist()) if self.steps_taken is None else self.steps_taken

    def logits(self, x: Tensor, *, rows: Tensor | None = None, proposed: Tensor | None = None) -> Tensor:
        """(N, K) logits; `eot` forward passes an image.

        Args:
            rows: which images of the batch x belongs to, if not all.
            proposed: (N, 3) what x was made of, under a spatial threat model.
        """
        with torch.no_grad():
            (logits,) = self._mean(lambda: (self._pass(x, rows),))
        self._tell(x if proposed is None else proposed, logits, rows, backwards=0)
        return logits

    def loss_and_gradient(
        self,
        x: Tensor,
        y: Tensor,
        loss: str,
        *,
        rows: Tensor | None = None,
        clean: Tensor | None = None,
        valued: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """A per-image loss (N,) and its gradient (N, C, H, W) at x; `eot` forward and backward passes an image.

        Args:
            x: (N, C, H, W) in [0, 1], not modified.
            y: per-image label, as the loss understands it.
            loss: a name of `attacks.losses.LOSSES`, or of a distance of features.
            rows: which images of the batch x belongs to; None for all of them.
            clean: (N, C, H, W) the clean images, for a distance of features, which passes them along each time.
            valued: whether the loss itself is asked for; where it is not, it may be an empty tensor.
        """
        if is_of_features(loss):
            assert clean is not None, "an attack that climbs distances of features gives the clean images"
            return self._feature_distance(x, clean, loss.removeprefix(FEATURES).removeprefix(":"), rows)

        slope = LOSS_GRADIENTS.get(loss)
        valued = valued or self._tells_losses

        def answer() -> tuple[Tensor, ...]:
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                logits = self._pass(point, rows)
                if slope is None:
                    climbed = LOSSES[loss](logits, y)
                    (gradient,) = torch.autograd.grad(climbed.sum(), point)
                    return logits.detach(), gradient, climbed.detach()
            answered = logits.detach()
            value, uphill = slope(answered, y, valued)
            (gradient,) = torch.autograd.grad(logits, point, uphill)
            return (answered, gradient) if value is None else (answered, gradient, value)

        logits, gradient, *values = self._mean(answer)
        value = values[0] if values else NO_LOSS
        self._tell(x, logits, rows, backwards=1, loss=values[0] if values else None)
        self._check(gradient)
        return value, gradient

    def _feature_distance(self, x: Tensor, clean: Tensor, layer: str, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """The squared distance (N,) of features from those of the clean images, and its gradient at x."""

        def answer() -> tuple[Tensor, Tensor, Tensor]:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == torch.bfloat16):
                with torch.no_grad():
                    there = features_and_logits(self._classifier, clean, layer)[0].float()
                with torch.enable_grad():
                    point = x.detach().requires_grad_()
                    features, logits = features_and_logits(self._classifier, point, layer)
            with torch.enable_grad():
                value = (features.float() - there).square().sum(1)
                (gradient,) = torch.autograd.grad(value.sum(), point)
            logits = logits.detach().float()
            return logits if self._reads is None else self._reads(logits, rows), value.detach(), gradient

        logits, value, gradient = self._mean(answer)
        self._tell(x, logits, rows, backwards=1, forwards=2, loss=value)
        self._check(gradient)
        return value, gradient

    def logits_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) logits and their gradients (N, K, C, H, W); `eot` forward and K `eot` backward passes an image."""

        def answer() -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                point = x.detach().requires_grad_()
                logits = self._pass(point, None)
                rows = [torch.autograd.grad(column.sum(), point, retain_graph=True)[0] for column in logits.unbind(1)]
            return logits.detach(), torch.stack(rows, 1)

        logits, jacobian = self._mean(answer)
        self._tell(x, logits, None, backwards=logits.shape[1])
        self._check(jacobian)
        return logits, jacobian

    def _check(self, gradient: Tensor) -> None:
        """Keep what tells whether a gradient is finite: its least and largest entry, which are NaN where any is."""
        if self._demands_finite and gradient.numel():
            self._extremes += torch.aminmax(gradient)
            if len(self._extremes) >= 2 * CHECK_EVERY:
                self.settle()

    def settle(self) -> None:
        """Raise InputError if a gradient since the last time was not finite, where that is an error."""
        extremes, self._extremes = self._extremes, []
        if extremes and not torch.stack(extremes).isfinite().all():
            raise InputError(
                "expected finite gradients, got NaN or infinity, with which no attack gets anywhere; mend the model's "
                "backward pass (a root or a logarithm of 0, a division by 0, torch.where around one) or its scale"
            )

    def _mean(self, answer: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Each tensor of an answer, averaged over as many answers as are asked for."""
        total = answer()
        for _ in range(self._eot - 1):
            total = tuple(one + other for one, other in zip(total, answer(), strict=True))
        return total if self._eot == 1 else tuple(tensor / self._eot for tensor in total)

    def _pass(self, x: Tensor, rows: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == torch.bfloat16):
            logits = self._classifier(x).float()
        return logits if self._reads is None else self._reads(logits, rows)

    def _tell(
        self,
        x: Tensor,
        logits: Tensor,
        rows: Tensor | None,
        *,
        backwards: int,
        forwards: int = 1,
        loss: Tensor | None = None,
    ) -> None:
        """Count a query of `backwards` gradients and `forwards` passes an answer, and tell who watches."""
        self.forwards += len(x) * self._eot * forwards
        self.backwards += len(x) * self._eot * backwards
        if self._watch is not None:
            self._watch(Query(x.detach(), logits, rows, self._eot * backwards, self._eot * forwards, loss))


class CountingClassifier(nn.Module):
    """A classifier for third-party attacks, which call it as they like: counts the passes of all images.

    `forwards` and `backwards` count images that passed through; a second gradient from one forward pass counts as a
    second backward pass. Third parties may call `.backward()`, so the classifier's parameters should be frozen.
    `queries` (N, 2) int64 is for an adapter that knows which image each pass was about: of each image all answers up to
    and including the one that broke it, and those of them whose class was not the image's; None where it does not.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self._classifier = classifier
        self.forwards = 0
        self.backwards = 0
        self.queries: Tensor | None = None
        self.training = False  # of this wrapper alone, which third parties look at; the classifier keeps its mode

    def forward(self, x: Tensor) -> Tensor:
        logits = self._classifier(x).float()
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
