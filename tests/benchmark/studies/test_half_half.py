"""The study of half-half training: which networks are trained, what they are attacked at, what stands beside them."""

from pathlib import Path

import pytest

from benchmark.data.datasets import load
from benchmark.studies import half_half, training
from benchmark.studies.half_half import Setting
from benchmark.studies.study import Inputs

BALLS = {"Linf": (("0.1", 0.1), ("0.3", 0.3)), "L2": (("0.5", 0.5), ("2.5", 2.5))}
PUBLISHED = {"Linf": (97.37, 89.92), "L2": (97.79, 63.73)}
"""Clean and robust accuracy of robust training on MNIST at the larger epsilon."""


@pytest.mark.parametrize("norm", BALLS)
def test_each_training_is_attacked_at_its_own_epsilon_beside_what_is_published(
    monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    monkeypatch.setattr(training, "load", lambda _, part, **__: load("digits", part, data_dir=Path()))
    monkeypatch.setattr(half_half, "SETTINGS", [Setting("mnist", "digits-cnn", norm, BALLS[norm], 1e-3, 1.0)])
    result = half_half.compute(Inputs(), train=640, test=80, updates=100)
    near, far = (epsilon for _, epsilon in BALLS[norm])
    rows = {(row["epsilon"], row["training"]): row for row in result.table.to_dict("records")}
    assert [training for epsilon, training in rows if epsilon == near] == ["standard", "half-half", "robust"]
    assert rows[near, "standard"]["clean_acc"] == rows[far, "standard"]["clean_acc"] > 60
    assert rows[far, "standard"]["robust_acc"] < rows[near, "standard"]["robust_acc"]
    assert rows[near, "robust"]["robust_acc"] > rows[near, "standard"]["robust_acc"]
    assert all(row["robust_acc"] <= row["clean_acc"] for row in rows.values())
    assert (rows[far, "robust"]["published_clean"], rows[far, "robust"]["published_robust"]) == PUBLISHED[norm]
    clean, robust, gained = result.comparisons
    standard, half, whole = (rows[far, training] for training in ("standard", "half-half", "robust"))
    assert clean.measured == half["clean_acc"] - whole["clean_acc"]
    assert robust.measured == whole["robust_acc"] - half["robust_acc"]
    assert gained.measured == half["robust_acc"] - standard["robust_acc"]
    assert len(half_half.draw(result.table).axes) == 1
