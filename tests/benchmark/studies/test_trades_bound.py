"""The bound behind TRADES: attained by the built distribution, as computed by hand; held by a trained network."""

from pathlib import Path

import pytest
import torch

from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import Split
from benchmark.studies import trades_bound, two_digits
from benchmark.studies.fitting import fit
from benchmark.studies.hinge_trades import HINGE, THETA, Built, both_sides, built_images
from benchmark.studies.study import Inputs
from model_zoo.architectures.registry import build
from model_zoo.training.recipe import Recipe


@pytest.mark.parametrize("delta", [0.2, 0.02])
def test_the_built_distribution_attains_the_bound_but_for_delta(delta: float) -> None:
    sides = both_sides(Built(delta).eval(), built_images(80), ThreatModel("Linf", 0.1), lam=delta**2, seed=0)
    wrong = (1 + THETA) / 4
    assert sides["natural_error"] == pytest.approx(wrong)
    assert sides["robust_error"] == pytest.approx(wrong + 0.5)
    assert sides["surrogate_risk"] == pytest.approx((1 + delta * THETA) / 2, abs=1e-5)
    assert sides["instability"] == pytest.approx((1 + delta) / 2, abs=1e-5)


def test_the_loss_is_computed_by_hand_where_nothing_can_move() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            f = 4 * (x.flatten(1)[:, 0] - 0.5)
            return torch.stack([-f, f], 1) / 2

    x, y = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1), torch.tensor([1, 1])
    images = Split("two", "test", x, y, torch.arange(2), 2)
    sides = both_sides(Fixed().eval(), images, ThreatModel("Linf", 0.0), lam=2.0, seed=0)
    assert sides == {"natural_error": 0.5, "robust_error": 0.5, "surrogate_risk": 1.0, "instability": 0.5}


def test_a_trained_network_keeps_the_bound_on_digits() -> None:
    whole = load("digits", "test", data_dir=Path())
    rows = ((whole.y == 1) | (whole.y == 3)).nonzero().flatten()[:60]
    images = Split("digits", "test", whole.x[rows], (whole.y[rows] == 3).long(), whole.index[rows], 2)
    network, threat = build("digits-small", 2), ThreatModel("Linf", 0.1)
    fit(network, images, HINGE, Recipe("digits-small", 15, 20, "adam", 3e-3, inner_steps=2), threat, seed=0, lam=5.0)
    sides = both_sides(network, images, threat, lam=5.0, seed=0)
    assert sides["natural_error"] < 0.1
    assert sides["robust_error"] <= sides["surrogate_risk"] + sides["instability"]


def test_ones_and_threes_are_balanced_classes_of_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Split("mnist", "test", torch.rand(100, 1, 2, 2), torch.arange(100) % 10, torch.arange(100), 10)
    monkeypatch.setattr(two_digits, "load", lambda *_, **__: whole)
    chosen = trades_bound.ones_and_threes("test", 8, Inputs(data_dir=tmp_path))
    assert chosen.y.tolist().count(0) == chosen.y.tolist().count(1) == 4
    assert set((chosen.index % 10).tolist()) == {1, 3}
    assert ((chosen.index % 10 == 3).long() == chosen.y).all()
