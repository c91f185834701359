"""SPSA and random points: several queries of an image in one pass, each counted and judged."""

import pytest
import torch
from torch import Tensor, nn

from attacks import attack, random_points, spsa
from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.several_points import first_of_each
from attacks.threat_model import ThreatModel


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4)).eval()


def images(model: nn.Module, n: int = 20) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, model(x).argmax(1)


def test_an_images_number_is_first_where_it_first_stands() -> None:
    assert first_of_each(torch.tensor([3, 1, 3, 3, 1, 0])).tolist() == [True, True, False, False, False, True]


def test_spsa_estimates_the_gradient_of_the_margin() -> None:
    """Of a linear classifier the estimate tends to the gradient, and its first step is against it in every pixel."""
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    weight += 0.5 * weight.sign()
    x, y = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])
    oracle = Oracle(lambda x: x.flatten(1) @ weight.T, ThreatModel("Linf", 0.1))
    state = spsa.init(x, y, oracle.threat, Draws.start(0, torch.tensor([0])))
    after = spsa.step(oracle, state, pairs_per_step=20_000, width=0.01, rel_step_size=0.1)
    gradient = (weight[0] - weight[1]).view(1, 1, 8, 8)
    clear = gradient.abs() > 1
    assert torch.equal((after.x_adv - x).sign()[clear], -gradient.sign()[clear])
    assert torch.allclose(after.first_moment / 0.1, gradient, atol=0.8)


@pytest.mark.parametrize(("name", "queries"), [("spsa-500", 500), ("random-points", 10_000)])
def test_every_query_is_counted_on_images_that_nothing_breaks(name: str, queries: int) -> None:
    model = network()
    x, y = images(model, 2)
    result = attack(model, x, y, name, epsilon=1e-6)
    assert result.robust.all()
    assert result.forwards.tolist() == [queries + 1] * 2  # and the judge's of the last point
    assert result.backwards.tolist() == [0, 0]


def test_random_points_keep_the_point_of_least_margin_and_stop_at_the_first_that_is_misclassified() -> None:
    model = network()
    x, y = images(model)
    threat = ThreatModel("Linf", 0.3)
    state = random_points.init(x, y, threat, Draws.start(0, torch.arange(len(x))))
    asked: list[float] = []
    for _ in range(3):
        state = random_points.step(Oracle(model, threat), state, queries_per_step=10)
        asked.append(float(state.margin.sum()))
    assert asked == sorted(asked, reverse=True)
    result = attack(model, x, y, "random-points", epsilon=1.0)
    assert not result.robust.all()
    assert (model(result.x_adv).argmax(1)[~result.robust] != y[~result.robust]).all()
    assert float(result.forwards[~result.robust].min()) < 1000


def test_a_stronger_search_by_spsa_breaks_no_less() -> None:
    model = network()
    x, y = images(model)
    longer = ATTACKS["spsa-500"].with_settings(name="longer", steps=40)
    short, long = (int(attack(model, x, y, spec, epsilon=0.1).robust.sum()) for spec in (ATTACKS["spsa-500"], longer))
    assert long <= short < len(x)
