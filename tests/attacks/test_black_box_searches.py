"""SPSA and random points: several queries of an image in one pass, each counted and judged. Foolbox's by labels."""

import foolbox
import pytest
import torch
from torch import Tensor, nn

from attacks import attack, nes, random_points, spsa
from attacks.draws import Draws
from attacks.generators import seeded
from attacks.losses import logit_margin
from attacks.oracle import CountingClassifier, Oracle
from attacks.registry import ATTACKS, attack_spec
from attacks.several_points import first_of_each, sums_so_far
from attacks.spec import Recurrence, ThirdParty
from attacks.threat_model import ThreatModel


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4)).eval()


class InDoublePrecision(nn.Module):
    """A network whose answers do not depend on the batch, once they are rounded to float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x.double())
        return logits.float()


def images(model: nn.Module, n: int = 20) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, model(x).argmax(1)


def test_an_images_number_is_first_where_it_first_stands() -> None:
    assert first_of_each(torch.tensor([3, 1, 3, 3, 1, 0])).tolist() == [True, True, False, False, False, True]


def linear_margin() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights (2, 64) of a linear classifier, the gradient of its margin, the grey image and its label."""
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    weight += 0.5 * weight.sign()
    return weight, (weight[0] - weight[1]).view(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])


def test_spsa_estimates_the_gradient_of_the_margin() -> None:
    """Of a linear classifier the estimate tends to the gradient, and its first step is against it in every pixel."""
    weight, gradient, x, y = linear_margin()
    oracle = Oracle(lambda x: x.flatten(1) @ weight.T, ThreatModel("Linf", 0.1))
    state = spsa.init(x, y, oracle.threat, Draws.start(0, torch.tensor([0])))
    after = spsa.step(oracle, state, queries_per_step=40_001, width=0.01, rel_step_size=0.1)
    clear = gradient.abs() > 1
    assert torch.equal((after.x_adv - x).sign()[clear], -gradient.sign()[clear])
    assert torch.allclose(after.first_moment / 0.1, gradient, atol=0.8)


def test_spsa_asks_about_each_new_point_and_no_other_inside_a_narrow_ball() -> None:
    """The points of a pair lie a hundredth away in every pixel, further than this ball reaches."""
    threat, asked = ThreatModel("Linf", 0.005), list[Tensor]()

    def model(points: Tensor) -> Tensor:
        asked.append(points.clone())
        return points.flatten(1)[:, :2]

    x, y = torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 0])
    state = spsa.init(x, y, threat, Draws.start(0, torch.arange(2)))
    for number in range(1, 4):
        state = spsa.step(Oracle(model, threat), state, queries_per_step=50, width=0.01, rel_step_size=0.25)
        points = torch.cat(asked)
        inside = threat.contains(points, x[:1].expand_as(points))
        assert len(points) == 2 * 49 * number
        assert int(inside.sum()) == 2 * number
        assert torch.equal(asked[-1], state.x_adv)


def test_nes_estimates_the_gradient_of_the_margin_and_goes_against_its_sign() -> None:
    """Of a linear classifier; within L2 a step has its length, not that of signs."""
    weight, gradient, x, y = linear_margin()
    for norm, length in (("Linf", 8 * 0.02), ("L2", 0.02)):
        oracle = Oracle(lambda x: x.double().flatten(1) @ weight.T.double(), ThreatModel(norm, 0.1))
        state = nes.init(x, y, oracle.threat, Draws.start(0, torch.tensor([0])))
        after = nes.step(oracle, state, queries_per_step=40_001, width=0.001, rel_step_size=0.2, momentum=0.9)
        assert torch.allclose(after.mean.float() / 0.1, gradient, atol=0.8)
        moved = (after.x_adv - x).float()
        assert float(moved.norm()) == pytest.approx(length, rel=1e-3)
        assert torch.equal(moved.sign()[gradient.abs() > 1], -gradient.sign()[gradient.abs() > 1])
    again = nes.step(oracle, after, queries_per_step=3, width=0.001, rel_step_size=0.2, momentum=1.0)
    assert torch.equal(again.mean, after.mean)  # nothing of a new estimate where all of the mean is kept


@pytest.mark.parametrize(("name", "queries"), [("spsa-500", 490), ("nes-500", 490), ("random-points", 10_000)])
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
    asked: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        asked.append(points.clone())
        logits: Tensor = model(points)
        return logits

    for _ in range(3):
        state = random_points.step(Oracle(watched, threat), state, queries_per_step=10)
    points = torch.cat([some.view(len(x), -1, *x.shape[1:]) for some in asked], 1)
    margin = logit_margin(model(points.flatten(0, 1)), y.repeat_interleave(30)).view(len(x), 30)
    least = margin.min(1)
    torch.testing.assert_close(state.margin, least.values)
    assert torch.equal(state.x_adv, points[torch.arange(len(x)), least.indices])
    result = attack(model, x, y, "random-points", epsilon=1.0)
    assert not result.robust.all()
    assert (model(result.x_adv).argmax(1)[~result.robust] != y[~result.robust]).all()
    assert float(result.forwards[~result.robust].min()) < 1000


@pytest.mark.parametrize("family", ["spsa", "nes"])
def test_a_longer_search_by_estimated_gradients_breaks_no_less(family: str) -> None:
    model = network()
    x, y = images(model)
    specs = (attack_spec(f"{family}-500"), attack_spec(f"{family}-2000"))
    short, long = (int(attack(model, x, y, spec, epsilon=0.1).robust.sum()) for spec in specs)
    assert long < short < len(x)


class EnoughError(Exception):
    """As many points as the test wants to see."""


@pytest.mark.parametrize(("name", "epsilon"), [("foolbox-boundary", 0.65), ("foolbox-hopskipjump", 0.34)])
def test_foolboxs_attacks_by_labels_propose_the_nearest_point_inside_that_foolbox_asks_about_within_the_budget(
    name: str, epsilon: float
) -> None:
    def model(x: Tensor) -> Tensor:  # noise is dark
        return torch.stack([0.6 - x.mean((1, 2, 3)), x[:, 0, :, :4].mean((1, 2)) - 0.6], 1)

    x, y = torch.rand(8, 1, 8, 8) / 4 + 0.75, torch.ones(8, dtype=torch.long)
    threat, budget = ThreatModel("Linf", epsilon), 400
    spec = attack_spec(f"{name}-{budget}")
    assert isinstance(spec.method, ThirdParty)
    counting = CountingClassifier(model)
    ours = spec.method.propose(counting, x, y, threat, seed=5, **spec.propose_params)

    shown: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        if len(shown) == budget:
            raise EnoughError
        shown.append(points.clone())
        return model(points)

    kinds = {"foolbox-boundary": foolbox.attacks.BoundaryAttack(steps=999)}
    kinds["foolbox-hopskipjump"] = foolbox.attacks.HopSkipJumpAttack(steps=999, constraint="linf")
    theirs = foolbox.PyTorchModel(CountingClassifier(watched), bounds=(0, 1))
    blend = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=100, steps=50)

    def run() -> None:
        start = blend.run(theirs, x, foolbox.Misclassification(y))
        assert (theirs(start).argmax(-1) != y).all()
        kinds[name].run(theirs, x, foolbox.Misclassification(y), starting_points=start)

    with seeded(5, "foolbox"), pytest.raises(EnoughError):
        run()
    points = torch.stack(shown)
    wrong = torch.stack([model(some).argmax(1) != y for some in shown])
    distance = (points - x).abs().amax((2, 3, 4))
    breaks = wrong & (distance <= epsilon)
    is_broken = breaks.any(0)
    assert 0 < int(is_broken.sum()) < 8
    assert wrong.any(0).all()
    nearest = points[torch.where(breaks, distance, torch.inf).argmin(0), torch.arange(8)]
    assert torch.equal(ours, torch.where(is_broken.view(-1, 1, 1, 1), nearest, x))
    assert counting.queries is not None
    queries = torch.where(is_broken, 1 + breaks.int().argmax(0), budget)
    bad = [int(wrong[: int(count), row].sum()) for row, count in enumerate(queries)]
    assert counting.queries.tolist() == [[int(count), some] for count, some in zip(queries, bad, strict=True)]


def test_foolboxs_attack_ends_when_all_images_are_broken() -> None:
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 0])
    counting = CountingClassifier(lambda x: torch.tensor([[0.0, 1.0]]).expand(len(x), 2))
    spec = attack_spec("foolbox-boundary-100")
    assert isinstance(spec.method, ThirdParty)
    spec.method.propose(counting, x, y, ThreatModel("Linf", 1.0), seed=0, **spec.propose_params)
    assert counting.forwards == 2
    assert counting.queries is not None
    assert counting.queries.tolist() == [[1, 1], [1, 1]]


def test_an_image_that_no_noise_makes_misclassified_stays() -> None:
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 0])
    method = ATTACKS["foolbox-hopskipjump"].method
    assert isinstance(method, ThirdParty)
    constant = CountingClassifier(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2))
    assert torch.equal(method.propose(constant, x, y, ThreatModel("Linf", 0.1), seed=0, queries=500), x)


def test_sums_so_far_are_each_images_own() -> None:
    rows, values = torch.tensor([3, 1, 3, 3, 1]), torch.tensor([[1, 5], [1, 6], [1, 7], [1, 0], [1, 2]])
    assert sums_so_far(rows, values).tolist() == [[1, 5], [1, 6], [2, 12], [3, 12], [2, 8]]


@pytest.mark.parametrize(
    ("name", "epsilon"), [("square-500", 0.05), ("spsa-500", 0.05), ("nes-500", 0.05), ("rays-500", 0.04)]
)
def test_queries_and_bad_queries_are_counted_up_to_the_one_that_breaks_an_image(name: str, epsilon: float) -> None:
    """Of one image at a time a classifier sees all queries in order, and can count them itself."""
    torch.manual_seed(0)
    network_ = InDoublePrecision(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))).eval()
    threat = ThreatModel("Linf", epsilon)
    x, y = images(network_)
    together = attack(network_, x, y, name, epsilon=threat.epsilon)
    assert together.queries is not None
    assert together.bad_queries is not None
    assert 0 < int(together.robust.sum()) < len(x)
    spec = attack_spec(name)
    assert isinstance(spec.method, Recurrence)
    for row in range(len(x)):
        seen: list[Tensor] = []

        def watched(points: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.extend(points)
            logits: Tensor = network_(points)
            return logits

        state = spec.method.init(x[[row]], y[[row]], threat, Draws.start(0, torch.tensor([row])), **spec.init_params)
        for _ in range(spec.steps):
            state = spec.method.step(Oracle(watched, threat), state, **spec.step_params)
        points = torch.stack(seen)
        bad = network_(points).argmax(1) != y[row]
        breaks = (bad & threat.contains(points, x[[row]].expand_as(points))).nonzero().squeeze(1)
        last = int(breaks[0]) + 1 if len(breaks) else len(points)
        assert int(together.queries[row]) == last
        assert int(together.bad_queries[row]) == int(bad[:last].sum())


def test_attacks_of_several_members_and_transfers_count_no_queries() -> None:
    model = network()
    x, y = images(model, 5)
    assert attack(model, x, y, "pgd-20", epsilon=0.1).queries is None
    assert attack(model, x, y, "autoattack-brief", epsilon=0.1).queries is None
    assert attack(model, x, y, "square-500", epsilon=0.1, source=network()).bad_queries is None


def test_a_shorter_budget_is_read_off_the_longer_attack() -> None:
    torch.manual_seed(0)
    model = InDoublePrecision(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))).eval()
    x, y = images(model)
    for family, epsilon in (("rays", 0.03), ("spsa", 0.02)):
        short, long = (attack(model, x, y, f"{family}-{queries}", epsilon=epsilon) for queries in (150, 600))
        assert long.queries is not None
        reached = ~long.robust & (long.queries <= 150)
        assert 0 < int(reached.sum()) < len(x)
        assert torch.equal(short.robust, ~reached)
