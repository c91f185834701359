"""Accuracy of a model that may leave out the images it is least confident of."""

import numpy as np
from numpy.typing import NDArray

from benchmark.stats.shares import Bools, percent


def accuracy_at_coverage(confidence: NDArray[np.floating], correct: Bools, coverage: float) -> float:
    """The accuracy, in percent, on the images of most confidence, so many that they are this share of all.

    Args:
        confidence: (N,) of the answer to each image. correct: (N,) whether it is right. coverage: in (0, 1].

    Returns: ties with the last one of these are covered, too; at least one image is.
    Source: Brown et al., arXiv:1809.08352, as in google/unrestricted-adversarial-examples eval_kit.py.
    """
    covered = max(int(coverage * len(confidence)), 1)
    threshold = np.sort(confidence)[-covered]
    return percent(correct[confidence >= threshold])
