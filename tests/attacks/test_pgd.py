import foolbox
import pytest
import torch
from torch import Tensor, nn

from attacks import pgd
from attacks.draws import Draws
from attacks.errors import InputError
from attacks.loop import run_steps
from attacks.oracle import Oracle
from attacks.registry import PGD
from attacks.threat_model import ThreatModel

THREATS = [ThreatModel("Linf", 8 / 255), ThreatModel("L2", 0.5)]
BOTH = pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.norm)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    ).eval()


def batch(n: int = 8) -> tuple[Tensor, Tensor]:
    """Images with black and white pixels among others, and labels of all kinds, most of them wrong."""
    generator = torch.Generator().manual_seed(1)
    x = (1.4 * torch.rand(n, 3, 9, 9, generator=generator) - 0.2).clamp(0, 1)
    return x, torch.randint(10, (n,), generator=generator)


def draws(n: int) -> Draws:
    return Draws.start(0, torch.arange(n))


@pytest.mark.parametrize(
    ("threat", "kind"),
    [
        (THREATS[0], foolbox.attacks.LinfProjectedGradientDescentAttack),
        (THREATS[1], foolbox.attacks.L2ProjectedGradientDescentAttack),
    ],
    ids=["Linf", "L2"],
)
def test_without_a_random_start_it_equals_foolbox_iterate_for_iterate(
    threat: ThreatModel, kind: type[foolbox.attacks.base.FixedEpsilonAttack]
) -> None:
    model, (x, y) = network(), batch()
    state = pgd.init(x, y, threat, draws(len(x)), start="none")
    oracle = Oracle(model, threat)
    for steps in range(1, 11):
        state = pgd.step(oracle, state, loss="cross-entropy", rel_step_size=0.3)
        theirs = kind(rel_stepsize=0.3, steps=steps, random_start=False).run(
            foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"),
            x,
            foolbox.Misclassification(y),
            epsilon=threat.epsilon,
        )
        torch.testing.assert_close(state.x_adv, theirs, rtol=0, atol=1e-6)
        assert state.steps.tolist() == [steps] * len(x)


@BOTH
def test_a_step_moves_by_the_step_size_in_the_direction_of_ascent(threat: ThreatModel) -> None:
    model, (_, y) = network(), batch()
    x = torch.full((len(y), 3, 9, 9), 0.5)
    state = pgd.init(x, y, threat, draws(len(x)), start="none")
    oracle = Oracle(model, threat)
    before = oracle.loss_and_gradient(x, y, "cross-entropy")[0]
    after = pgd.step(oracle, state, loss="cross-entropy", rel_step_size=0.1)
    assert threat.distance(after.x_adv, x).numpy() == pytest.approx(0.1 * threat.epsilon, rel=1e-4)
    assert (oracle.loss_and_gradient(after.x_adv, y, "cross-entropy")[0] > before).all()


@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
@pytest.mark.parametrize("threat", [*THREATS, ThreatModel("Linf", 0.0005), ThreatModel("L2", 0.005)], ids=str)
def test_every_start_is_in_the_set(start: str, threat: ThreatModel) -> None:
    x, y = batch(200)
    started = pgd.init(x, y, threat, draws(len(x)), start=start)
    assert threat.contains(started.x_adv, x).all()
    assert started.steps.tolist() == [0] * len(x)


def test_without_a_random_start_the_first_point_is_the_image_itself() -> None:
    x, y = batch()
    assert torch.equal(pgd.init(x, y, THREATS[0], draws(len(x)), start="none").x_adv, x)


def test_the_gaussian_start_is_the_image_and_a_thousandth_of_normal_noise() -> None:
    x = torch.full((100, 1, 9, 9), 0.5)
    started = pgd.init(x, torch.zeros(100), THREATS[0], draws(100), start="gaussian")
    noise = (started.x_adv - x) / 0.001
    assert noise.std().item() == pytest.approx(1.0, abs=0.03)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.03)
    assert noise.abs().max() > 3


def test_the_uniform_start_fills_the_ball() -> None:
    x = torch.full((100, 1, 9, 9), 0.5)
    delta = pgd.init(x, torch.zeros(100), THREATS[0], draws(100), start="uniform").x_adv - x
    assert delta.abs().mean().item() == pytest.approx(THREATS[0].epsilon / 2, rel=0.05)


def test_another_start_is_refused() -> None:
    with pytest.raises(InputError, match="start must be none, uniform or gaussian, got 'normal'"):
        pgd.init(*batch(), THREATS[0], draws(8), start="normal")


@BOTH
def test_a_step_leaves_the_state_before_it_alone(threat: ThreatModel) -> None:
    x, y = batch()
    state = pgd.init(x, y, threat, draws(len(x)), start="uniform")
    kept = state.x_adv.clone()
    after = pgd.step(Oracle(network(), threat), state, loss="margin", rel_step_size=0.5)
    assert torch.equal(state.x_adv, kept)
    assert state.steps.tolist() == [0] * len(x)
    assert not torch.equal(after.x_adv, kept)


def test_trainers_get_the_last_iterate_of_the_same_steps() -> None:
    model, (x, y) = network(), batch()
    settings = {"loss": "cross-entropy", "rel_step_size": 0.3}
    oracle = Oracle(model, THREATS[0])
    start = {"start": "uniform"}
    x_adv = run_steps(PGD, oracle, x, y, draws(8), steps=3, init_params=start, step_params=settings)
    assert (oracle.forwards, oracle.backwards) == (3 * len(x), 3 * len(x))
    state = pgd.init(x, y, THREATS[0], draws(8), start="uniform")
    for _ in range(3):
        state = pgd.step(Oracle(model, THREATS[0]), state, loss="cross-entropy", rel_step_size=0.3)
    assert torch.equal(x_adv, state.x_adv)
    assert not x_adv.requires_grad


def test_trades_inner_problem_climbs_the_kl_divergence_from_the_clean_prediction() -> None:
    model, (x, _) = network(), batch()
    clean = model(x).log_softmax(1).detach()
    oracle = Oracle(model, THREATS[0])
    state = pgd.init(x, clean, THREATS[0], draws(8), start="gaussian")
    divergence = []
    for _ in range(5):
        divergence.append(oracle.loss_and_gradient(state.x_adv, clean, "kl-divergence")[0])
        state = pgd.step(oracle, state, loss="kl-divergence", rel_step_size=0.25)
    assert (divergence[-1] > 10 * divergence[0]).all()
    assert THREATS[0].contains(state.x_adv, x).all()
