"""Simulated runs of the gate."""

import numpy as np
import pytest
from gate_simulation import Kind, alike, simulate

DRAWS = np.random.default_rng(0)
ONE = DRAWS.random(500) < 0.6
OTHER = ONE ^ (DRAWS.random(500) < 0.08)


def test_pairs_are_of_models_that_are_about_equally_robust() -> None:
    broken, weaker = np.zeros(500, np.bool_), ONE & (DRAWS.random(500) < 0.7)
    pairs = alike([ONE, OTHER, weaker, broken, ONE])
    assert all(abs(one.mean() - other.mean()) <= 0.02 for one, other in pairs)
    assert all((one != other).any() and one.any() for one, other in pairs)
    assert len(pairs) in (1, 2)


def test_an_unchanged_model_never_fails_and_takes_a_part_of_the_images() -> None:
    row = simulate(Kind("unchanged", 1000, 0.0), [(ONE, OTHER)], 20, seed=0)
    assert (row["failed %"], row["differ %"]) == (0.0, 0.0)
    assert row["attacked %"] == pytest.approx(27.0)


def test_a_large_drop_is_always_found() -> None:
    for model in ("unchanged", "retrained"):
        assert simulate(Kind(model, 500, 15.0), [(ONE, OTHER)], 20, seed=0)["failed %"] == 100.0


def test_a_retrained_model_differs_as_the_pair_does_and_rarely_fails() -> None:
    row = simulate(Kind("retrained", 500, 0.0), [(ONE, OTHER)], 100, seed=0)
    assert row["differ %"] == pytest.approx(100 * float((ONE != OTHER).mean()))
    assert float(str(row["failed %"])) <= 5.0


def test_a_tolerated_drop_is_no_failure_and_one_among_many_questions_is_still_found() -> None:
    row = simulate(Kind("unchanged", 1000, 1.0), [(ONE, OTHER)], 100, seed=0)
    assert row["within %"] == 100.0
    assert float(str(row["wrong %"])) <= 4.0
    crowd = simulate(Kind("unchanged", 500, 2.0, others=29, canaries=3), [(ONE, OTHER)], 20, seed=0)
    assert (crowd["questions"], crowd["failed %"], crowd["wrong %"]) == (33, 100.0, 0.0)
