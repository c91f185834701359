"""RayS against a plain program of its own, and against the closed form on a linear classifier."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacks import attack, rays
from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel

TOLERANCE = 1e-3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 4)).double().eval()


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def states(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int) -> list[rays.State]:
    oracle = Oracle(model, ThreatModel("Linf", 0.3))
    found = [rays.init(x, y, oracle.threat, Draws.start(0, torch.arange(len(x))))]
    for _ in range(steps):
        found.append(rays.step(oracle, found[-1], tolerance=TOLERANCE))
    return found


def by_the_book(is_wrong: Callable[[Tensor], bool], x: Tensor, queries: int) -> list[float]:
    """The least radius after each query, of one image (C, H, W): nested loops, as the paper has them."""
    radii: list[float] = []
    best, direction = 1.0, torch.ones(x.numel(), dtype=x.dtype)

    def ask(candidate: Tensor, radius: float) -> bool:
        radii.append(best)
        return is_wrong((x + radius * candidate.view_as(x)).clamp(0, 1))

    def search(candidate: Tensor) -> float | None:
        if not ask(candidate, best):
            return None
        low, high = 0.0, best
        while high - low > TOLERANCE:
            middle = (low + high) / 2
            low, high = (low, middle) if ask(candidate, middle) else (middle, high)
        return high

    found = search(direction)
    best = best if found is None else found
    while len(radii) < queries:
        size = x.numel()
        while True:
            for start in range(0, x.numel(), size):
                candidate = direction.clone()
                candidate[start : start + size] *= -1
                found = search(candidate)
                if found is not None and found < best:
                    best, direction = found, candidate
            if size == 1 or len(radii) >= queries:
                break
            stage = 1
            while -(-x.numel() // 2**stage) >= size:
                stage += 1
            size = -(-x.numel() // 2**stage)
    return radii[1:queries]


def test_each_query_is_that_of_nested_loops() -> None:
    model, x = network(), images()
    y = model(x).argmax(1)
    found = states(model, x, y, 400)
    for place in range(len(x)):
        label = int(y[place])

        def is_wrong(point: Tensor, label: int = label) -> bool:
            return int(model(point[None]).argmax(1)) != label

        expected = by_the_book(is_wrong, x[place], 400)
        assert [float(state.radius[place]) for state in found[1:400]] == pytest.approx(expected)


def test_on_a_linear_classifier_it_finds_the_closed_form_distance() -> None:
    weight = torch.randn(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = torch.full((1, 1, 4, 5), 0.5, dtype=torch.float64)
    bias = -float(weight.sum()) * 0.5 - 1.0  # a margin of 1

    def classifier(points: Tensor) -> Tensor:
        logit = points.flatten(1) @ weight + bias
        return torch.stack([-logit, logit], 1)

    last = states(classifier, x, torch.tensor([0]), 600)[-1]
    assert float(last.radius[0]) == pytest.approx(1.0 / float(weight.abs().sum()), abs=2 * TOLERANCE)
    assert torch.equal(last.direction.flatten(), weight.sign())


def test_it_asks_for_labels_alone() -> None:
    """Logits that keep their order, and no more, lead it along the same way."""
    model, x = network(), images()
    y = model(x).argmax(1)
    plain, ranks = (states(ask, x, y, 100)[-1] for ask in (model, lambda x: model(x).argsort(1).argsort(1).double()))
    assert torch.equal(plain.direction, ranks.direction)


def test_more_queries_break_no_less_and_each_is_counted() -> None:
    model = network().float()
    x = images(20).float()
    y = model(x).argmax(1)
    few, many = (attack(model, x, y, ATTACKS["rays"].with_settings(steps=n), epsilon=0.2) for n in (50, 500))
    assert int(many.robust.sum()) < int(few.robust.sum()) < len(x)
    assert few.forwards[few.robust].tolist() == [51] * int(few.robust.sum())  # and the judge's of the last point
    assert not few.backwards.any()


class Band(nn.Module):
    """Another class where all pixels grew by 0.05 to 0.15, and nowhere else along the first direction."""

    def forward(self, x: Tensor) -> Tensor:
        growth = x.flatten(1).mean(1) - 0.5
        return torch.stack([torch.zeros_like(growth), torch.where((growth > 0.05) & (growth < 0.15), 1.0, -1.0)], 1)


def test_a_point_that_nobody_asked_about_is_no_success() -> None:
    """That at epsilon is misclassified, but the first query is about radius 1, and so are all others."""
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 0])
    found = attack(Band().eval(), x, y, "rays-20", epsilon=0.1)
    assert found.robust.tolist() == [True, True]
    assert found.queries is not None
    assert found.bad_queries is not None
    assert (found.queries.tolist(), found.bad_queries.tolist()) == ([20, 20], [0, 0])


def test_what_it_proposes_in_the_end_was_asked_about_or_is_the_image() -> None:
    asked: list[Tensor] = []

    def model(points: Tensor) -> Tensor:
        asked.append(points.clone())
        logits: Tensor = network_(points)
        return logits

    network_, x = network(), images(20)
    threat, y = ThreatModel("Linf", 0.05), network_(x).argmax(1)
    state = rays.init(x, y, threat, Draws.start(0, torch.arange(20)))
    for _ in range(200):
        state = rays.step(Oracle(model, threat), state, tolerance=TOLERANCE)
    is_near = state.radius <= threat.epsilon
    assert 0 < int(is_near.sum()) < 20
    assert torch.equal(state.x_adv[~is_near], x[~is_near])
    nearest = torch.stack([(points - state.x_adv).abs().flatten(1).amax(1) for points in asked]).amin(0)
    assert nearest[is_near].max() < 1e-7
