"""The alternating labels of TRADES: the harness's attacks find the errors that can be written down."""

import numpy as np

from benchmark.studies.study import Inputs
from benchmark.studies.tradeoff_example import ALL_ONE, BAYES, compute

EPSILON, POINTS = 0.25, 48


def test_attacks_find_the_robust_error_of_alternating_labels_at_every_radius() -> None:
    result = compute(Inputs(), epsilon=EPSILON, points=POINTS, radii=4)
    assert all(one.agrees for one in result.comparisons)
    x = (np.arange(POINTS) + 0.5) / POINTS
    bounds = np.arange(EPSILON, 1, EPSILON)  # where labels change; 0 and 1 are ends of the pixel range
    distance = np.abs(x[:, None] - bounds).min(1)
    bayes, ones = (result.table[result.table["classifier"] == name] for name in (BAYES, ALL_ONE))
    expected = [(distance < radius).mean() for radius in bayes["radius"]]
    np.testing.assert_allclose(bayes["robust_error"], expected, atol=1e-9)
    assert set(ones["robust_error"]) == {0.5}
