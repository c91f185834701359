"""Splines and least-norm regression: the estimators do what they are defined by; errors are those computed by hand."""

import numpy as np
import pytest

from benchmark.studies import min_norm, regression, splines
from benchmark.studies.study import Inputs


def test_the_smoothest_spline_through_points_of_a_line_is_the_line() -> None:
    features = splines.site_features()
    sites = np.concatenate([np.arange(10.0), np.arange(10.0) + 0.5])
    seen = [0, 3, 14]
    fitted = features @ splines.smoothest(features[seen], sites[seen])
    np.testing.assert_allclose(features.sum(1), 1)  # B-splines are a partition of unity
    np.testing.assert_allclose(fitted[seen], sites[seen], atol=1e-9)
    assert features.shape == (20, 22)


def test_nothing_through_the_same_points_has_smaller_second_differences() -> None:
    features = splines.site_features()
    seen, y = [0, 1, 2, 5, 10, 11], np.array([0.0, 1, 2, 5, 0, 1])
    best = splines.smoothest(features[seen], y)
    roughness = np.sum(np.diff(best, 2) ** 2)
    free = np.linalg.svd(features[seen])[2][len(seen) :]
    for direction in free:
        for step in (-0.1, 0.1):
            assert np.sum(np.diff(best + step * direction, 2) ** 2) >= roughness - 1e-9


def test_self_training_keeps_labels_and_takes_the_weighted_teacher_elsewhere() -> None:
    labelled = np.arange(10) < 4
    unlabelled, teacher = np.concatenate([np.full(10, 3.0), np.full(10, 1.0)]), np.arange(20.0)
    found = splines.self_trained(labelled, unlabelled, teacher)
    np.testing.assert_allclose(found[:4], np.arange(4))
    np.testing.assert_allclose(found[:10], found[10:])
    np.testing.assert_allclose(found[4], (3 * 4 + 14) / 4)


def test_augmentation_hurts_at_few_samples_and_self_training_never() -> None:
    result = splines.compute(Inputs(), trials=30, noise=0.01)
    assert [one.what for one in result.comparisons if not one.agrees] == []


def test_what_augmentation_gains_is_computed_by_hand_where_it_is_known() -> None:
    """Train on e1, augment with e2: v = theta_2 e2, w = theta_3 e3, and the gain is S_22 v^2 + 2 S_23 v w."""
    x = np.array([[1.0, 0, 0], [0, 1, 1]])
    problem = regression.Problem(x, np.array([[1.0, 1, 0], [0, 1, 1]]), np.array([0.5, 0.5]), np.array([1.0, 0, 2]), 1)
    standard, augmented = regression.least_norm(problem)
    np.testing.assert_allclose(standard, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(augmented, [1, 0, 0], atol=1e-12)
    tilted = regression.Problem(x, problem.moved, problem.weights, np.array([1.0, -3, 2]), 1)
    gain = tilted.standard_error(np.array([1.0, 0, 0])) - tilted.standard_error(np.array([1.0, -3, 0]))
    assert regression.predicted_gain(tilted, tilted.second_moment) == pytest.approx(gain)
    assert gain == pytest.approx(0.5 * (9 + 2 * -3 * 2))


def test_theorems_of_linear_regression_hold_on_random_problems() -> None:
    result = min_norm.compute(Inputs(), problems=40, dimension=12)
    proven = [one for one in result.comparisons if "read as" not in one.source]
    assert len(proven) == 5
    assert [one.what for one in proven if not one.agrees] == []
    assert (result.table["augmented"] > result.table["standard"]).any()
