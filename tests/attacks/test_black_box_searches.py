"""SPSA and random points: several queries of an image in one pass, each counted and judged. Foolbox's by labels."""

import foolbox
import pytest
import torch
from torch import Tensor, nn

from attacks import attack, random_points, spsa
from attacks.draws import Draws
from attacks.generators import seeded
from attacks.oracle import CountingClassifier, Oracle
from attacks.registry import ATTACKS
from attacks.several_points import first_of_each
from attacks.spec import ThirdParty
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


@pytest.mark.parametrize("name", ["foolbox-boundary", "foolbox-hopskipjump"])
def test_foolboxs_attacks_by_labels_propose_what_foolbox_finds_by_itself(name: str) -> None:
    def model(x: Tensor) -> Tensor:  # noise is dark
        return torch.stack([0.6 - x.mean((1, 2, 3)), x[:, 0, :, :4].mean((1, 2)) - 0.6], 1)

    x, y = torch.rand(8, 1, 8, 8) / 4 + 0.75, torch.ones(8, dtype=torch.long)
    threat = ThreatModel("Linf", 0.3)
    spec = ATTACKS[name]
    assert isinstance(spec.method, ThirdParty)
    ours = spec.method.propose(CountingClassifier(model), x, y, threat, seed=5, steps=20 if "boundary" in name else 2)
    kinds = {"foolbox-boundary": foolbox.attacks.BoundaryAttack(steps=20)}
    kinds["foolbox-hopskipjump"] = foolbox.attacks.HopSkipJumpAttack(steps=2, constraint="linf")
    theirs = foolbox.PyTorchModel(CountingClassifier(model), bounds=(0, 1))
    with seeded(5, "foolbox"):
        blend = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=100, steps=50)
        start = blend.run(theirs, x, foolbox.Misclassification(y))
        found = kinds[name].run(theirs, x, foolbox.Misclassification(y), starting_points=start)
    assert torch.equal(ours, threat.project(found, x))
    assert not torch.equal(ours, threat.project(start, x))


def test_an_image_that_no_noise_makes_misclassified_stays() -> None:
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 0])
    method = ATTACKS["foolbox-hopskipjump"].method
    assert isinstance(method, ThirdParty)
    constant = CountingClassifier(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2))
    assert torch.equal(method.propose(constant, x, y, ThreatModel("Linf", 0.1), seed=0, steps=1), x)
