"""Accuracy at a coverage: that of the images of most confidence."""

import numpy as np
import pytest

from benchmark.stats.coverage import accuracy_at_coverage


@pytest.mark.parametrize(("coverage", "accuracy"), [(0.2, 100.0), (0.4, 50.0), (0.8, 75.0), (1.0, 60.0), (0.01, 100.0)])
def test_the_least_confident_images_are_left_out(coverage: float, accuracy: float) -> None:
    confidence, correct = np.array([0.1, 9.0, 3.0, 5.0, 2.0]), np.array([False, True, True, False, True])
    assert accuracy_at_coverage(confidence, correct, coverage) == accuracy


def test_ties_with_the_last_covered_image_are_covered() -> None:
    assert accuracy_at_coverage(np.array([2.0, 1.0, 1.0, 1.0]), np.array([True, False, False, True]), 0.5) == 50.0
