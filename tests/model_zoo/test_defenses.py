"""Contracts that every registered defense keeps, and the limits in which one becomes another."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.data import balanced_subset
from benchmark.datasets import load
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.bounds import convex, intervals
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DEFENSES, DefenseSpec, defense_spec

every_defense = pytest.mark.parametrize("spec", DEFENSES.values(), ids=DEFENSES.keys())
Batch = tuple[Tensor, Tensor, TrainingContext]


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Twenty digits, and the context to defend them in."""
    split = balanced_subset(load("digits", "train", data_dir=Path("unused")), 20, seed=0)
    draws = Draws.start(0, split.index)
    return split.x, split.y, TrainingContext(ThreatModel("Linf", 0.2), draws, steps=3, rel_step_size=0.5)


def network() -> DigitsCNN:
    torch.manual_seed(0)
    return DigitsCNN()


def loss_of(spec: DefenseSpec, model: nn.Module, batch: Batch, **params: float) -> Tensor:
    return spec.batch_loss(model, *batch, **{**spec.params, **params})


def loss_and_gradients(spec: DefenseSpec, batch: Batch, **params: float) -> tuple[Tensor, list[Tensor]]:
    model = network()
    loss = loss_of(spec, model, batch, **params)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@every_defense
def test_the_loss_is_a_finite_scalar(spec: DefenseSpec, batch: Batch) -> None:
    loss = loss_of(spec, network(), batch)
    assert loss.shape == ()
    assert loss.isfinite()


@every_defense
def test_gradients_reach_every_parameter(spec: DefenseSpec, batch: Batch) -> None:
    _, gradients = loss_and_gradients(spec, batch)
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.any()


@every_defense
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_leaves_mode_images_parameters_and_gradients_alone(
    spec: DefenseSpec, batch: Batch, training: bool
) -> None:
    model, (x, y, _) = network().train(training), batch
    before = [value.clone() for value in (x, y, *model.parameters())]
    loss_of(spec, model, batch)
    assert model.training is training
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, old) for value, old in zip((x, y, *model.parameters()), before, strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@every_defense
def test_the_loss_repeats_under_the_same_draws_and_uses_no_others(spec: DefenseSpec, batch: Batch) -> None:
    first, gradients = loss_and_gradients(spec, batch)
    model = network()
    torch.manual_seed(123)  # the global generator is not asked
    assert torch.equal(loss_of(spec, model, batch).detach(), first)
    assert all(torch.equal(a, b) for a, b in zip(loss_and_gradients(spec, batch)[1], gradients, strict=True))


@every_defense
def test_a_few_steps_learn(spec: DefenseSpec, batch: Batch) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(spec, model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("spec", [spec for spec in DEFENSES.values() if spec.bound is None], ids=lambda s: s.name)
def test_batch_statistics_do_not_depend_on_the_attack(spec: DefenseSpec, batch: Batch) -> None:
    def statistics(steps: int) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
        x, y, ctx = batch
        loss_of(spec, model, (x, y, TrainingContext(ctx.threat, ctx.draws, steps, 0.0)))
        counter = model[1].num_batches_tracked
        assert isinstance(counter, Tensor)
        return counter

    assert statistics(1) == statistics(5) > 0


@pytest.mark.parametrize(
    ("name", "params", "limit"),
    [
        ("trades", {"beta": 0.0}, "natural"),
        ("half-half", {"weight": 0.0}, "natural"),
        ("smoothing", {"sigma": 0.0}, "natural"),
        ("ibp", {"kappa": 1.0}, "natural"),
        ("half-half", {"weight": 1.0}, "madry"),
    ],
)
def test_a_defense_in_its_limit_is_another(batch: Batch, name: str, params: Mapping[str, float], limit: str) -> None:
    loss, gradients = loss_and_gradients(DEFENSES[name], batch, **params)
    expected, expected_gradients = loss_and_gradients(DEFENSES[limit], batch)
    assert torch.equal(loss, expected)
    for gradient, want in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-6, atol=1e-8)


def test_without_a_budget_adversarial_training_is_natural(batch: Batch) -> None:
    x, y, ctx = batch
    still = TrainingContext(ThreatModel("Linf", 0.0), ctx.draws, ctx.steps, ctx.rel_step_size)
    expected, _ = loss_and_gradients(DEFENSES["natural"], batch)
    for name in ("madry", "half-half", "trades", "ibp", "convex-bound"):
        loss, _ = loss_and_gradients(DEFENSES[name], (x, y, still))
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("name", "params"), [("ibp", {"kappa": 0.0}), ("convex-bound", {})])
def test_at_epsilon_zero_a_certified_defense_is_natural_training(
    batch: Batch, name: str, params: Mapping[str, float]
) -> None:
    x, y, ctx = batch
    still = replace(ctx, threat=ThreatModel("Linf", 0.0))
    expected, expected_gradients = loss_and_gradients(DEFENSES["natural"], batch)
    loss, gradients = loss_and_gradients(DEFENSES[name], (x, y, still), **params)
    torch.testing.assert_close(loss, expected)
    for gradient, want in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


def test_after_a_warm_up_the_budget_of_ibp_grows_and_the_clean_part_falls(batch: Batch) -> None:
    x, y, ctx = batch
    model, clean = network(), F.cross_entropy(network()(x), y)
    for epoch, growth in enumerate([0.0, 0.0, 0.5, 1.0, 1.0], start=1):
        when = replace(ctx, epoch=epoch, epochs=5)
        loss = loss_of(DEFENSES["ibp"], model, (x, y, when), kappa=0.6, warm_up=0.4, ramp=0.4)
        worst = F.cross_entropy(-intervals.margins(model, x, y, 0.2 * growth), y)
        torch.testing.assert_close(loss, (1 - 0.4 * growth) * clean + 0.4 * growth * worst)


def test_the_budget_of_the_convex_bound_grows_from_its_start(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    for epoch, epsilon in enumerate([0.1, 0.15, 0.2, 0.2, 0.2], start=1):
        when = replace(ctx, epoch=epoch, epochs=5)
        loss = loss_of(DEFENSES["convex-bound"], model, (x, y, when), start=0.05, ramp=0.6)
        torch.testing.assert_close(loss, F.cross_entropy(-convex.margins(model, x, y, epsilon), y))


def test_noise_of_smoothing_belongs_to_the_image_and_the_epoch(batch: Batch) -> None:
    x, y, ctx = batch
    seen: list[Tensor] = []
    model = network()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0] - x))
    later = replace(ctx, draws=Draws.start(0, ctx.draws.index, torch.ones_like(ctx.draws.index)))
    for context in (ctx, later):
        loss_of(DEFENSES["smoothing"], model, (x, y, context), sigma=0.25)
    first, second = seen
    assert first.std().item() == pytest.approx(0.25, rel=0.05)
    assert abs((first * second).mean().item()) < 0.01
    part = Draws(0, ctx.draws.index[5:], ctx.draws.restart[5:], ctx.draws.step[5:])
    torch.testing.assert_close(0.25 * part.normal(x.shape[1:], stream=3), first[5:])


def test_projections_change_the_bound_and_repeat(batch: Batch) -> None:
    exact, first, again = (loss_of(DEFENSES["convex-bound"], network(), batch, projections=p) for p in (0, 50, 50))
    assert torch.equal(first, again)
    assert not torch.equal(first, exact)
    assert first.item() == pytest.approx(exact.item(), rel=0.2)
    for projections in (-1, 2.5):
        with pytest.raises(InputError, match="projections must be a whole number"):
            loss_of(DEFENSES["convex-bound"], network(), batch, projections=projections)


@pytest.mark.parametrize("name", ["ibp", "convex-bound"])
def test_a_certified_defense_refuses_another_norm_and_phases_longer_than_the_training(batch: Batch, name: str) -> None:
    x, y, ctx = batch
    with pytest.raises(InputError, match="bounds Linf balls, got the norm L2"):
        loss_of(DEFENSES[name], network(), (x, y, replace(ctx, threat=ThreatModel("L2", 1.0))))
    with pytest.raises(InputError, match="fractions of all epochs, at most 1 together"):
        loss_of(DEFENSES[name], network(), batch, ramp=1.5)


def test_adversarial_losses_lie_above_the_natural_one(batch: Batch) -> None:
    natural, _ = loss_and_gradients(DEFENSES["natural"], batch)
    madry, _ = loss_and_gradients(DEFENSES["madry"], batch)
    assert madry > natural
    for name in ("half-half", "trades"):
        loss, _ = loss_and_gradients(DEFENSES[name], batch)
        assert loss > natural


def test_trades_is_clean_cross_entropy_plus_beta_times_the_divergence_of_clean_from_adversarial(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    x_adv = ctx.craft(model, x, y, loss="kl-divergence", start="gaussian")
    clean, adversarial = model(x).softmax(1), model(x_adv).softmax(1)
    divergence = (clean * (clean.log() - adversarial.log())).sum(1).mean()
    expected = -clean[torch.arange(len(y)), y].log().mean() + 6 * divergence
    torch.testing.assert_close(loss_of(DEFENSES["trades"], model, batch), expected)


@pytest.mark.parametrize(("loss", "start"), [("cross-entropy", "uniform"), ("kl-divergence", "gaussian")])
def test_crafted_images_lie_in_the_threat_model_and_raise_the_loss(batch: Batch, loss: str, start: str) -> None:
    x, y, ctx = batch
    model = network()
    x_adv = ctx.craft(model, x, y, loss=loss, start=start)
    assert ctx.threat.contains(x_adv, x).all()
    assert not x_adv.requires_grad
    assert nn.functional.cross_entropy(model(x_adv), y) > nn.functional.cross_entropy(model(x), y)


@pytest.mark.parametrize("params", [{}, {"beta": 1.0, "weight": 1.0}, {"tau": 1.0}])
def test_a_defense_with_parameters_that_its_loss_does_not_take_is_refused(params: Mapping[str, float]) -> None:
    with pytest.raises(InputError, match=r"expected parameters \['beta'\]"):
        DefenseSpec("mine", DEFENSES["trades"].batch_loss, "mine", True, "-", "-", params)


@every_defense
def test_a_model_is_named_by_its_defense_and_all_its_parameters_have_a_default(spec: DefenseSpec) -> None:
    assert defense_spec(spec.name) is spec
    assert spec.model_name.format(**spec.params)
    assert spec.summary
