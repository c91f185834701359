"""Sparse-RS beside all choices of pixels and corners, where these are few enough to go through."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from attacks import attack
from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.sparse_rs import init, step
from attacks.threat_model import ThreatModel


class Wavy(nn.Module):
    """Three classes of a 3 x 3 image of two channels, by waves of its values, so that pixels act together."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(18, 12, generator=generator))
        self.second = nn.Parameter(torch.randn(12, 3, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return (0.2 * x.flatten(1) @ self.first).sin() @ self.second


def problem(n: int = 60) -> tuple[nn.Module, Tensor, Tensor]:
    model = Wavy().eval()
    x = torch.rand(n, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def breakable(model: nn.Module, x: Tensor, y: Tensor, count: int) -> Tensor:
    """(N,) bool: whether any `count` pixels at any corners break an image."""
    found = torch.zeros(len(x), dtype=torch.bool)
    corners = list(itertools.product((0.0, 1.0), repeat=2))
    for pixels in itertools.combinations(range(9), count):
        for colours in itertools.product(corners, repeat=count):
            changed = x.clone().flatten(2)
            for pixel, colour in zip(pixels, colours, strict=True):
                changed[:, :, pixel] = torch.tensor(colour)
            with torch.no_grad():
                found |= model(changed.view_as(x)).argmax(1) != y
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_of_what_any_choice_of_pixels_and_corners_breaks_it_misses_one_in_twenty_and_it_breaks_nothing_else(
    count: int,
) -> None:
    model, x, y = problem()
    expected = breakable(model, x, y, count)
    assert (expected.sum() > 5) & (expected.sum() < 60)
    short = ATTACKS["sparse-rs"].with_settings(steps=100)
    found = attack(model, x, y, short, epsilon=count, norm="L0", precision="fp32")
    assert not (~found.robust & ~expected).any()
    assert (found.robust & expected).sum() <= expected.sum() / 20
    assert ThreatModel("L0", count).contains(found.x_adv, x).all()


def test_the_margin_never_rises_and_is_that_of_the_proposal() -> None:
    model, x, y = problem(8)
    threat = ThreatModel("L0", 3)
    oracle, state = Oracle(model, threat), init(x, y, threat, Draws.start(0, torch.arange(8)))
    margins = []
    for _ in range(5):
        state = step(oracle, state, iterations=5, queries_per_step=4, alpha_init=0.3)
        with torch.no_grad():
            logits = model(state.x_adv)
        rest = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        torch.testing.assert_close(logits.gather(1, y[:, None]).squeeze(1) - rest, state.margin)
        margins.append(state.margin)
    assert (torch.stack(margins).diff(dim=0) <= 0).all()
    assert (state.chosen.sum(1) == 3).all()


def test_a_radius_of_all_pixels_leaves_none_to_exchange_and_runs() -> None:
    model, x, y = problem(3)
    found = attack(model, x, y, ATTACKS["sparse-rs"].with_settings(steps=2), epsilon=9, norm="L0", precision="fp32")
    assert found.x_adv.shape == x.shape


@pytest.mark.parametrize("count", [9, 300])
def test_where_all_pixels_may_change_it_redraws_their_colours(count: int) -> None:
    model, x, y = problem(8)
    threat = ThreatModel("L0", count)
    state = init(x, y, threat, Draws.start(0, torch.arange(8)))
    first = step(Oracle(model, threat), state, iterations=40, queries_per_step=1, alpha_init=0.3)
    state = first
    for _ in range(39):
        state = step(Oracle(model, threat), state, iterations=40, queries_per_step=1, alpha_init=0.3)
    assert state.chosen.all()
    assert ((state.x_adv == 0) | (state.x_adv == 1)).all()
    assert (state.margin < first.margin).float().mean() > 0.7
