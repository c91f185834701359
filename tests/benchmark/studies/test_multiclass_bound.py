"""psi of cross-entropy for any number of classes: its closed forms, that nothing is below it, and the bound."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from torch import Tensor, nn

from benchmark.data.split import Split
from benchmark.studies import multiclass_bound, psi
from benchmark.studies.multiclass_bound import Tempered, compute, draw, three_sides
from benchmark.studies.psi import largest_gap, least_ratio
from benchmark.studies.study import Inputs


def test_psi_is_the_divergence_of_two_classes_from_a_tie_and_is_inverted() -> None:
    gaps = np.array([0.0, 0.3, 0.8, 1.0])
    pairs = np.stack([(1 + gaps) / 2, (1 - gaps) / 2], 1)
    assert psi.psi(gaps) == pytest.approx(rel_entr(pairs, 0.5).sum(1))
    assert [largest_gap(float(value)) for value in psi.psi(gaps)] == pytest.approx(gaps, abs=1e-9)
    assert largest_gap(math.log(2) + 1) == 1.0


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_no_probabilities_are_below_psi_and_some_come_near(classes: int) -> None:
    assert 1.0 <= least_ratio(classes, draws=20_000, seed=1) < 1.01


def test_a_psi_that_is_a_tenth_too_large_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = psi.psi
    monkeypatch.setattr(psi, "psi", lambda gap: 1.1 * right(gap))
    assert least_ratio(3, draws=20_000, seed=1) < 1.0


class ByBrightness(nn.Module):
    """Three logits of one pixel: class 0 below 0.25, else 1; class 2 is never likeliest."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0.25 - x.flatten(), x.flatten() - 0.25, torch.full((len(x),), -1.0)], 1)


def test_both_sides_are_computed_by_hand_on_one_pixel() -> None:
    x = torch.tensor([0.0, 0.1, 0.4, 0.9]).view(4, 1, 1, 1)  # within 0.2 the second and the third change their class
    y = torch.tensor([0, 0, 1, 0])
    sides = three_sides(ByBrightness().eval(), Split("four", "test", x, y, torch.arange(4), 3), seed=0)
    assert (sides["natural_error"], sides["robust_error"], sides["changed"]) == (0.25, 0.75, 0.5)
    logits = ByBrightness()(x).double()
    risk = float(nn.functional.cross_entropy(logits, y))
    assert sides["allowed_error"] == pytest.approx(largest_gap(risk))
    assert sides["by_changes"] == pytest.approx(sides["allowed_error"] + 0.5)
    p = logits.softmax(1)
    moved = ByBrightness()(torch.tensor([0.2, 0.3, 0.2, 0.7]).view(4, 1, 1, 1)).double().softmax(1)
    gap = (p.topk(2).values @ torch.tensor([1.0, -1.0], dtype=torch.float64)).numpy()
    shares = (rel_entr(p.numpy(), moved.numpy()).sum(1) / psi.psi(gap)).clip(max=1.0)
    assert shares[1] == shares[2] == 1.0
    assert sides["by_divergence"] == pytest.approx(sides["allowed_error"] + shares.mean(), abs=1e-4)


def test_the_temperature_lowers_the_cross_entropy_and_changes_no_class() -> None:
    x = torch.linspace(0, 1, 20).view(-1, 1, 1, 1)
    y = (x.flatten() >= 0.25).long()
    images = Split("twenty", "test", x, y, torch.arange(20), 3)
    tempered = Tempered(ByBrightness(), images)
    assert tempered.temperature < 0.1
    assert (tempered(x).argmax(1) == ByBrightness()(x).argmax(1)).all()
    cross_entropy = nn.functional.cross_entropy
    assert cross_entropy(tempered(x), y) < cross_entropy(ByBrightness()(x), y) / 2


def test_the_study_bounds_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiclass_bound, "MODELS", ("natural", "trades-b6"))
    result = compute(Inputs(), images=60, draws=2000)
    assert all(comparison.agrees for comparison in result.comparisons)
    for row in result.table.to_dict("records"):
        assert row["robust_error"] <= row["by_changes"] <= row["by_divergence"]
    assert len(draw(result.table).axes) == 1
