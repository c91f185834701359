"""The one place that says what "robust" means: how images are classified, and which proposals count."""

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.errors import InputError
from attacks.generators import seeded
from attacks.oracle import Classifier
from attacks.precision import full_float32
from attacks.threat_model import ThreatModel


def predict(
    classifier: Classifier, x: Tensor, *, batch_size: int, bring: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    """(N,) predicted classes of images (N, C, H, W), in float32 (`full_float32`).

    Args:
        bring: what becomes of each batch first, such as its way to the device, where not all of x fits.

    Raises: InputError for logits that are not finite, which are no prediction.
    """
    return _logits(classifier, x, batch_size, bring).argmax(1)


def judge(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int,
    rejected: int | None = None,
) -> Tensor:
    """Whether each proposed image withstands: is still classified correctly, or rejected by a model that may do so.

    The only test of robustness of a fixed model.

    Args:
        x: (N, C, H, W); y: (N,).
        x_adv: (N, C, H, W) proposed images, or what the threat model makes images of (`ThreatModel.images`).
        rejected: what a model that detects attacks answers in place of a class; None for one that does not. A clean
            image that it rejects is wrong; a proposal that it rejects is no success of the attack.

    Returns: (N,) bool.
    Raises: ValueError if a proposal is outside the threat model, outside [0, 1] or not a number: no success, an error.
    """
    return wrong_classes(classifier, x, y, x_adv, threat, batch_size=batch_size, rejected=rejected) < 0


def wrong_classes(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    threat: ThreatModel,
    *,
    batch_size: int,
    rejected: int | None = None,
) -> Tensor:
    """(N,) int64: what each proposed image is taken for, -1 where it withstands. Args, Raises: as `judge`."""
    refuse_outside(x, x_adv, threat)
    predicted = predict(classifier, threat.images(x_adv, x), batch_size=batch_size)
    return torch.where(withstands(predicted, y, rejected), -1, predicted)


def withstands(predicted: Tensor, y: Tensor, rejected: int | None) -> Tensor:
    """(N,) bool: proposals that are taken for their label y (N,), or rejected. Args: as `judge`."""
    return predicted == y if rejected is None else (predicted == y) | (predicted == rejected)


def predict_expected(
    classifier: Classifier, x: Tensor, *, draws: int, key: tuple[int, int], batch_size: int
) -> tuple[Tensor, Tensor]:
    """How a randomised model is judged: by the class of its mean probabilities over several passes.

    All generators are seeded before each pass, so that clean images and proposals meet the same draws. A model may draw
    for the batch: its size and the device may change the numbers.

    Args:
        x: (N, C, H, W), a whole chunk, in which images that are not proposed stand as they are.
        draws: how many passes.
        key: what the draws belong to: the case's seed, and the dataset's index of the chunk's first image.

    Returns: (N,) the classes by expectation, and (N,) those of the first draw alone.
    Raises: as `predict`.
    """
    total, first = torch.zeros(()), torch.zeros(())
    for draw in range(draws):
        with seeded(*key, draw):
            probabilities = _logits(classifier, x, batch_size).double().softmax(1)
        total, first = (total + probabilities, first) if draw else (probabilities, probabilities)
    return total.argmax(1), first.argmax(1)


class BatchJudge:
    """Decides about a batch of images and about what an attack proposes for them.

    A fixed model is asked once. A randomised one is judged by its mean probabilities (`predict_expected`).

    Args:
        x: (N, C, H, W); y: (N,).
        draws: passes whose mean probabilities decide on a randomised model; 0 for a fixed one.
        key: as for `predict_expected`.
        prediction: (N,) the classes of the clean images, where they are known; of no use for a randomised model.
        rejected: as for `judge`.

    Attributes:
        prediction: (N,) the classes of the clean images.
        robust_single: (N,) bool, of a randomised model in its first draw alone, so far; None for a fixed one.
    """

    def __init__(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        draws: int,
        key: tuple[int, int],
        batch_size: int,
        prediction: Tensor | None = None,
        rejected: int | None = None,
    ) -> None:
        self._classifier, self._x, self._y, self._threat = classifier, x, y, threat
        self._draws, self._key, self._batch_size, self._rejected = draws, key, batch_size, rejected
        self.robust_single: Tensor | None = None
        if draws:
            prediction, first = self._expected(x)
            self.robust_single = (prediction == y) & (first == y)
        self.prediction = predict(classifier, x, batch_size=batch_size) if prediction is None else prediction

    def wrong_classes(self, points: Tensor, rows: Tensor) -> Tensor:
        """(M,) int64 of proposals (M, C, H, W) for some rows (M,) of the batch, -1 for correct. Raises: as `judge`."""
        x, y = self._x[rows], self._y[rows]
        if self.robust_single is None:
            return wrong_classes(
                self._classifier,
                x,
                y,
                points,
                self._threat,
                batch_size=self._batch_size,
                rejected=self._rejected,
            )
        refuse_outside(x, points, self._threat)
        proposed = self._x.index_copy(0, rows, self._threat.images(points, x))
        expected, first = (classes[rows] for classes in self._expected(proposed))
        self.robust_single[rows] &= withstands(first, y, self._rejected)
        return torch.where(withstands(expected, y, self._rejected), -1, expected)

    def _expected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return predict_expected(self._classifier, x, draws=self._draws, key=self._key, batch_size=self._batch_size)


def refuse_outside(x: Tensor, x_adv: Tensor, threat: ThreatModel) -> None:
    """Raise ValueError for proposals outside the threat model, or outside [0, 1], or no numbers. Args: as `judge`."""
    outside = ~threat.contains(x_adv, x)
    if outside.any():
        worst = threat.distance(x_adv[outside], x[outside]).max().item()
        raise ValueError(
            f"an attack proposed {int(outside.sum())} of {len(x)} images outside the threat model: expected "
            f"{threat.norm} <= {threat.epsilon} and pixels in [0, 1], got a distance up to {worst}; mend the attack"
        )


@torch.no_grad()
def _logits(
    classifier: Classifier, x: Tensor, batch_size: int, bring: Callable[[Tensor], Tensor] = lambda part: part
) -> Tensor:
    answers = []
    with full_float32():
        for part in x.split(batch_size):
            answers.append(classifier(bring(part)))
            classes = answers[0].shape[1:]
            if answers[-1].shape != (len(part), *classes) or len(classes) != 1:
                raise InputError(
                    f"expected logits of shape ({len(part)}, K), K the same for all images, got "
                    f"{tuple(answers[-1].shape)}; have the model return a row for each image"
                )
    logits = torch.cat(answers)
    if not logits.isfinite().all():
        raise InputError("expected finite logits, got NaN or infinity; check the model's weights and normalisation")
    return logits
