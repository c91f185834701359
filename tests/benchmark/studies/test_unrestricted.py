"""The two-class warm-up: its images, and its attacks on a network whose margins are known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.draws import Draws
from benchmark.data.split import Split
from benchmark.studies import two_digits, unrestricted
from benchmark.studies.study import Inputs
from benchmark.studies.unrestricted import (
    DECIDED,
    L2,
    MOVES,
    PIXELS,
    TwoLogits,
    by_boundary,
    by_grid,
    by_spsa,
    moved_at_random,
)

Y = torch.tensor([0, 1])


class Brightness(nn.Module):
    """Two logits of the mean: images above `at` are of class 1."""

    def __init__(self, at: float, scale: float = 100.0) -> None:
        super().__init__()
        self.at, self.scale = at, scale

    def forward(self, x: Tensor) -> Tensor:
        f = self.scale * (x.mean((1, 2, 3)) - self.at)
        return torch.stack([-f, f], 1) / 2


def flat(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).clone()


def draws(n: int = 2) -> Draws:
    return Draws.start(0, torch.arange(n))


def test_two_digits_are_balanced_and_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Split("mnist", "test", torch.rand(100, 1, 2, 2), torch.arange(100) % 10, torch.arange(100), 10)
    monkeypatch.setattr(two_digits, "load", lambda *_, **__: whole)
    chosen = two_digits.two_digits(unrestricted.DIGITS, "test", 8, Inputs(data_dir=Path()))
    assert sorted(chosen.y.tolist()) == [6] * 4 + [7] * 4
    assert (chosen.index % 10 == chosen.y).all()


def test_two_of_ten_logits_are_asked_for() -> None:
    logits = torch.arange(20.0).view(2, 10)
    assert TwoLogits(nn.Identity())(logits).tolist() == [[6.0, 7.0], [16.0, 17.0]]


def test_the_grid_finds_the_move_that_takes_most_ink_out_of_the_picture() -> None:
    x = torch.zeros(2, 1, 28, 28)
    x[:, :, 10:18, 20:26] = 1  # near the right side
    found = by_grid(Brightness(0.001), x, torch.tensor([1, 1]), draws())
    assert found.shape == x.shape
    assert found.sum() < 0.2 * x.sum()


def test_random_moves_are_within_their_limits_and_belong_to_images() -> None:
    x = torch.zeros(50, 1, 28, 28)
    x[:, :, 13:15, 13:15] = 1
    moved = moved_at_random(x, draws(50))
    places = torch.arange(28.0) - 13.5
    ink = moved.sum((1, 2, 3))
    right = (moved.sum((1, 2)) * places).sum(1) / ink
    assert right.abs().max() <= MOVES.epsilon + 0.1
    assert right.abs().max() > 8
    assert torch.equal(moved_at_random(x[:1], Draws.start(0, torch.tensor([7]))), moved[7:8])


def test_spsa_goes_on_until_the_wrong_logit_leads_and_stays_in_the_ball() -> None:
    x = flat(0.49, 0.51)
    model = Brightness(0.5)
    found = by_spsa(model, x, Y, draws(), steps=40)
    assert PIXELS.contains(found, x).all()
    margin = model(found).diff(dim=1).squeeze(1) * (2 * Y - 1)
    assert (margin <= -DECIDED).all()
    out_of_reach = by_spsa(Brightness(0.9), x, Y * 0, draws(), steps=3)
    assert PIXELS.contains(out_of_reach, x).all()
    assert (Brightness(0.9)(out_of_reach).argmax(1) == 0).all()


def test_the_boundary_attack_walks_from_an_image_of_the_other_class_and_stays_in_its_ball() -> None:
    x = flat(0.45, 0.55, 0.9)
    y, starts = torch.tensor([0, 1, 0]), flat(1.0, 0.0, 1.0)
    model = Brightness(0.5)
    found = by_boundary(model, x, y, starts, seed=0, queries=300)
    assert L2.contains(found, x).all()
    assert (model(found).argmax(1) != y).all()
    assert torch.equal(found[2], x[2])  # misclassified as it is
    right = flat(0.4)  # a start that the model takes for the image's own class
    assert torch.equal(by_boundary(model, x[:1], y[:1], right, seed=0, queries=10), x[:1])


def test_each_image_starts_from_one_of_the_other_class() -> None:
    y = torch.tensor([6, 7, 6, 6])
    images = Split("mnist", "test", flat(*y.tolist()), y, torch.arange(4), 10)
    assert unrestricted.others(images)[:, 0, 0, 0].tolist() == [7.0, 6.0, 7.0, 7.0]
