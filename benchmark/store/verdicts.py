"""Verdicts: what is stored of each image of a case, and what is read of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.stats.shares import Bools


@dataclass(frozen=True)
class Verdicts:
    """What one case showed, one row per image, in the order of the images.

    Args:
        index: (N,) int64, the image's index in its dataset.
        label: (N,) int64.
        prediction: (N,) int64, the class of the clean image.
        robust_any: (N,) bool, correct when clean and at every judged proposal.
        robust_last: (N,) bool, correct when clean and at the last iterate; None where an attack has no such reading.
        forwards, backwards: (N,) float64 passes spent on the image.
        robust_single: (N,) bool, of a randomised model, whose other verdicts are by expectation: in the first draw
            alone, correct when clean and at every proposal; None for other models.
        adversarial_class: (N,) int64, of the first judged proposal that is misclassified; -1 where there is none, and
            where the image is misclassified when clean; None for verdicts stored before it was.
        queries, bad_queries: (N,) int64, of an attack without gradients, the model's answers up to and including the
            one that broke the image, or all of them; and those whose class was not the image's. None where they were
            not counted: with gradients, by transfer, of a randomised model, and before they were stored.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    robust_any: Bools
    robust_last: Bools | None
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]
    robust_single: Bools | None = None
    adversarial_class: NDArray[np.int64] | None = None
    queries: NDArray[np.int64] | None = None
    bad_queries: NDArray[np.int64] | None = None

    def of(self, rows: slice) -> "Verdicts":
        """The same of some of the images."""
        columns: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in vars(self).items()
        }
        return Verdicts(**columns)

    @property
    def correct(self) -> Bools:
        """(N,) bool: classified correctly when clean."""
        correct: Bools = self.label == self.prediction
        return correct

    def robust(self, reading: str) -> Bools:
        """(N,) bool by the reading "any" or "last"; an attack without a last iterate has one reading only."""
        return self.robust_last if reading == "last" and self.robust_last is not None else self.robust_any
