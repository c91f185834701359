"""Contracts that every registered defense keeps, and the limits in which one becomes another."""

import math
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
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.bounds import convex, interval_bounds
from model_zoo.defenses import cat, gairat, mart, transfer
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DEFENSES, DefenseSpec, defense_spec
from model_zoo.training.recipes import BURN_IN

every_defense = pytest.mark.parametrize("spec", DEFENSES.values(), ids=DEFENSES.keys())
Batch = tuple[Tensor, Tensor, TrainingContext]


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Sixty-four digits, and the context to defend them in."""
    split = balanced_subset(load("digits", "train", data_dir=Path("unused")), 64, seed=0)
    draws = Draws.start(0, split.index)
    source = network(seed=1).eval().requires_grad_(False)
    ctx = TrainingContext(ThreatModel("Linf", 0.2), draws, steps=3, rel_step_size=0.5, epoch=2, epochs=2, source=source)
    return split.x, split.y, ctx


def network(*, seed: int = 0) -> DigitsCNN:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DigitsCNN()


def fewer(batch: Batch) -> Batch:
    """A part of the batch, for the convex bound, which is slow."""
    x, y, ctx = batch
    return x[:20], y[:20], replace(ctx, draws=Draws.start(0, ctx.draws.index[:20]))


def loss_of(spec: DefenseSpec, model: nn.Module, batch: Batch, **params: float) -> Tensor:
    x, y, ctx = fewer(batch) if spec.bound == "convex" else batch
    return spec.batch_loss(model, x, y, replace(ctx, carried={}), **{**spec.params, **params})


def loss_and_gradients(spec: DefenseSpec, batch: Batch, **params: float) -> tuple[Tensor, list[Tensor]]:
    model = network()
    loss = loss_of(spec, model, batch, **params)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return loss.detach(), list(gradients)


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
def test_gradients_reach_every_parameter_that_is_trained(spec: DefenseSpec, batch: Batch) -> None:
    _, gradients = loss_and_gradients(spec, batch)
    trained = gradients[-2:] if spec.batch_loss is transfer.head_loss else gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.any() for gradient in trained)
    assert sum(bool(gradient.any()) for gradient in gradients) == len(trained)


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
def test_the_loss_depends_on_epsilon_just_where_the_entry_says_so(spec: DefenseSpec, batch: Batch) -> None:
    x, y, ctx = fewer(batch) if spec.bound == "convex" else batch
    losses = []
    for epsilon in (0.2, 0.05):
        now = replace(ctx, threat=replace(ctx.threat, epsilon=epsilon), carried={})
        model = network()
        spec.batch_loss(model, x, y, now, **spec.params).backward()  # from here on free training attacks
        losses.append(spec.batch_loss(model, x, y, now, **spec.params).item())
    assert (losses[0] != losses[1]) is spec.uses_epsilon


@every_defense
def test_a_few_steps_learn(spec: DefenseSpec, batch: Batch) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = loss_of(spec, model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def batches_seen(spec: DefenseSpec, batch: Batch, steps: int, **params: float) -> int:
    """By batch normalisation, in the loss of one batch under an attack of so many steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    x, y, ctx = batch
    loss_of(spec, model, (x, y, replace(ctx, steps=steps, rel_step_size=0.0, source=model)), **params)
    counter = model[1].num_batches_tracked
    assert isinstance(counter, Tensor)
    return int(counter)


@pytest.mark.parametrize(
    "spec", [spec for spec in DEFENSES.values() if spec.bound is None and spec.name != "cat"], ids=lambda s: s.name
)
def test_batch_statistics_do_not_depend_on_the_attack(spec: DefenseSpec, batch: Batch) -> None:
    keeps_the_source_s = spec.name.startswith("transfer-")
    assert batches_seen(spec, batch, 1) == batches_seen(spec, batch, 5)
    assert (batches_seen(spec, batch, 1) > 0) is not keeps_the_source_s


def test_the_curriculum_crafts_in_train_mode(batch: Batch) -> None:
    assert [batches_seen(DEFENSES["cat"], batch, steps, ramp=0.1) for steps in (1, 5)] == [
        2,
        6,
    ]  # each step, and the loss


def test_during_its_burn_in_gair_rst_shows_batch_statistics_what_trades_shows_them(batch: Batch) -> None:
    assert batches_seen(DEFENSES["gair-rst"], batch, 3, lam=BURN_IN) == batches_seen(DEFENSES["trades"], batch, 3) == 2
    assert batches_seen(DEFENSES["gair-rst"], batch, 3, lam=3.0) == 3


def test_half_half_starts_close_to_the_image_and_shows_both_halves_in_one_batch(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="gaussian")
    expected = (F.cross_entropy(model(x), y) + 3 * F.cross_entropy(model(x_adv), y)) / 4
    torch.testing.assert_close(loss_of(DEFENSES["half-half"], model, batch, weight=0.75), expected)
    assert batches_seen(DEFENSES["half-half"], batch, 3) == 1


EXACT, ROUNDED = 0.0, 1e-6


@pytest.mark.parametrize(
    ("name", "params", "limit", "rtol"),
    [
        ("trades", {"beta": 0.0}, "natural", EXACT),
        ("half-half", {"weight": 0.0}, "natural", ROUNDED),
        ("input-gradient", {"beta": 0.0}, "natural", ROUNDED),
        ("stability", {"beta": 0.0}, "natural", EXACT),
        ("stability", {"sigma": 0.0}, "natural", EXACT),
        ("fat", {"tau": 99.0}, "madry", EXACT),
        ("fat-trades", {"tau": 99.0}, "trades", EXACT),
        ("fat-mart", {"tau": 99.0}, "mart", EXACT),
        ("dat", {"c_max": 0.0}, "madry", EXACT),
        ("gairat", {"lam": math.inf}, "madry", ROUNDED),
        ("gair-fat", {"lam": math.inf}, "fat", ROUNDED),
        ("gair-rst", {"lam": BURN_IN}, "trades", EXACT),
        ("transfer-lwf", {"lam": 0.0}, "natural", EXACT),
        ("transfer-lwf", {"head_first": 1.0}, "transfer-last-layer", EXACT),
        ("cascade", {"weight": 0.0, "similarity": 0.0}, "natural", EXACT),
        ("smoothing", {"sigma": 0.0}, "natural", EXACT),
        ("ibp", {"kappa": 1.0}, "natural", EXACT),
        ("denoiser", {}, "natural", EXACT),  # of a network without a mask
    ],
)
def test_a_defense_in_its_limit_is_another(
    batch: Batch, name: str, params: Mapping[str, float], limit: str, rtol: float
) -> None:
    loss, gradients = loss_and_gradients(DEFENSES[name], batch, **params)
    expected, expected_gradients = loss_and_gradients(DEFENSES[limit], batch)
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=0.0)
    for gradient, want in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-5, atol=1e-8)


def test_fast_training_is_madry_training_with_one_step(batch: Batch) -> None:
    x, y, ctx = batch
    expected, _ = loss_and_gradients(DEFENSES["madry"], (x, y, replace(ctx, steps=1, rel_step_size=1.25)))
    assert torch.equal(loss_and_gradients(DEFENSES["fast"], batch, rel_step_size=1.25)[0], expected)


def test_fast_training_with_an_unclipped_start_differs_at_the_ends_of_the_pixel_range_alone(batch: Batch) -> None:
    x, y, ctx = batch

    def losses(images: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(  # type: ignore[return-value]
            loss_and_gradients(DEFENSES["fast"], (images, y, ctx), clip_start=clip)[0] for clip in (0.0, 1.0)
        )

    assert torch.equal(*losses(0.3 + 0.4 * x))  # a ball of 0.2 around it lies in [0, 1]
    assert not torch.equal(*losses(x))


def test_the_second_replay_of_free_training_meets_the_examples_of_fast_training(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    carried = {"delta": ctx.threat.random_start(x, ctx.draws) - x}
    losses = []
    for _ in range(2):  # of one batch, without a step of the weights between them
        loss = DEFENSES["free"].batch_loss(model, x, y, replace(ctx, carried=carried), rel_step_size=1.0)
        loss.backward()
        losses.append(loss.detach())
    at_the_start = nn.functional.cross_entropy(model(ctx.threat.random_start(x, ctx.draws)), y)
    torch.testing.assert_close(losses[0], at_the_start.detach())
    expected, _ = loss_and_gradients(DEFENSES["fast"], batch, rel_step_size=1.0)
    torch.testing.assert_close(losses[1], expected)
    assert losses[1] > losses[0]


def test_free_training_without_replays_begins_naturally_and_carries_its_perturbation_on(batch: Batch) -> None:
    x, y, ctx = batch
    free = DEFENSES["free"].batch_loss
    carried: dict[str, Tensor] = {}
    model = network()
    first = free(model, x[:40], y[:40], replace(ctx, carried=carried), rel_step_size=1.0)
    assert torch.equal(first, nn.functional.cross_entropy(model(x[:40]), y[:40]))
    first.backward()
    delta = carried["delta"].clone()
    assert delta.abs().max() == pytest.approx(0.2)
    second = free(model, x[40:], y[40:], replace(ctx, carried=carried), rel_step_size=1.0)
    moved = ctx.threat.project(x[40:] + delta[: len(x) - 40], x[40:])
    torch.testing.assert_close(second, nn.functional.cross_entropy(model(moved), y[40:]))
    second.backward()  # of a smaller batch
    assert torch.equal(carried["delta"][len(x) - 40 :], delta[len(x) - 40 :])


def test_mixed_training_with_no_weight_on_adversarial_images_is_natural_on_the_first_half(batch: Batch) -> None:
    x, y, ctx = batch
    loss, _ = loss_and_gradients(DEFENSES["mixed"], batch, weight=0.0)
    expected, _ = loss_and_gradients(DEFENSES["natural"], (x[:32], y[:32], ctx))
    torch.testing.assert_close(loss, expected)


def test_mart_is_boosted_cross_entropy_and_a_divergence_weighted_by_doubt(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="gaussian")
    clean, adversarial = model(x).softmax(1).double(), model(x_adv).softmax(1).double()
    rows = torch.arange(len(y))
    others = adversarial.clone()
    others[rows, y] = -1
    boosted = (-adversarial[rows, y].log() - (1 - others.max(1).values).log()).mean()
    divergence = (clean * (clean / adversarial).log()).sum(1)
    for beta in (0.0, 6.0):
        expected = boosted + beta * (divergence * (1 - clean[rows, y])).mean()
        got = loss_of(DEFENSES["mart"], model, batch, beta=beta).double()
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=0.0)  # the guards of the logarithm


def test_the_curriculum_begins_with_natural_training_and_ends_with_all_levels(batch: Batch) -> None:
    x, y, ctx = batch
    natural, _ = loss_and_gradients(DEFENSES["natural"], batch)
    assert torch.equal(loss_and_gradients(DEFENSES["cat"], (x, y, replace(ctx, epoch=1)))[0], natural)
    assert [cat.level_at(epoch, 10, ramp=0.6, highest=3) for epoch in range(1, 11)] == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    model, last = network(), replace(ctx, epoch=2)  # level 3 of 3: four parts of 16 images
    parts = [x[:16]]
    for steps in (1, 2, 3):
        x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="uniform", steps=steps, rel_step_size=2 / 3)
        parts.append(x_adv[16 * steps : 16 * (steps + 1)])
    expected = nn.functional.cross_entropy(model(torch.cat(parts)), y)
    torch.testing.assert_close(loss_of(DEFENSES["cat"], model, (x, y, last), ramp=0.1), expected)


def test_weights_fall_with_the_number_of_correct_iterates_and_have_mean_one() -> None:
    correct = torch.arange(11)
    for lam in (-1.0, 0.0, 2.0):
        weight = gairat.weights(correct, 10, lam)
        assert weight.mean() == pytest.approx(1.0)
        assert (weight.diff() < 0).all()
        ratio = (1 + math.tanh(lam + 5)) / (1 + math.tanh(lam))
        assert weight[0] / weight[5] == pytest.approx(ratio)
    for burn_in in (math.inf, BURN_IN):
        assert torch.equal(gairat.weights(correct, 10, burn_in), torch.ones(11))


def test_input_gradient_penalty_is_the_squared_norm_by_finite_differences(batch: Batch) -> None:
    x, y, ctx = batch
    images, model = x[:2].double(), network().double()

    def losses(at: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(at), y[:2], reduction="none")

    squares = torch.zeros(2, dtype=torch.float64)
    for pixel in range(64):
        step = torch.zeros(64, dtype=torch.float64)
        step[pixel] = 1e-5
        squares += ((losses(images + step.view(1, 8, 8)) - losses(images - step.view(1, 8, 8))) / 2e-5) ** 2
    got = DEFENSES["input-gradient"].batch_loss(model, images, y[:2], ctx, beta=5.0)
    torch.testing.assert_close(got, losses(images).mean() + 5 * squares.mean(), rtol=1e-6, atol=0.0)


def test_without_a_budget_adversarial_training_is_natural(batch: Batch) -> None:
    x, y, ctx = batch
    still = TrainingContext(ThreatModel("Linf", 0.0), ctx.draws, ctx.steps, ctx.rel_step_size)
    expected, _ = loss_and_gradients(DEFENSES["natural"], batch)
    for name in (
        "madry",
        "half-half",
        "trades",
        "fat",
        "fat-trades",
        "cat",
        "dat",
        "gair-rst",
        "free",
        "fast",
        "ibp",
    ):
        loss, _ = loss_and_gradients(DEFENSES[name], (x, y, still))
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("name", "params"), [("ibp", {"kappa": 0.0}), ("convex-bound", {})])
def test_at_epsilon_zero_a_certified_defense_is_natural_training(
    batch: Batch, name: str, params: Mapping[str, float]
) -> None:
    x, y, ctx = fewer(batch)
    still = replace(ctx, threat=ThreatModel("Linf", 0.0))
    expected, expected_gradients = loss_and_gradients(DEFENSES["natural"], (x, y, ctx))
    loss, gradients = loss_and_gradients(DEFENSES[name], (x, y, still), **params)
    torch.testing.assert_close(loss, expected)
    for gradient, want in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


def test_after_a_clean_start_the_budget_of_ibp_grows_and_the_clean_part_falls(batch: Batch) -> None:
    x, y, ctx = batch
    model, clean = network(), F.cross_entropy(network()(x), y)
    for epoch, growth in enumerate([0.0, 0.0, 0.5, 1.0, 1.0], start=1):
        when = replace(ctx, epoch=epoch, epochs=5)
        loss = loss_of(DEFENSES["ibp"], model, (x, y, when), kappa=0.6, clean_start=0.4, ramp=0.4)
        worst = F.cross_entropy(-interval_bounds.margins(model, x, y, 0.2 * growth), y)
        torch.testing.assert_close(loss, (1 - 0.4 * growth) * clean + 0.4 * growth * worst)


def test_the_budget_of_the_convex_bound_grows_from_its_start(batch: Batch) -> None:
    x, y, ctx = fewer(batch)
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
        DefenseSpec(
            "mine",
            batch_loss=DEFENSES["trades"].batch_loss,
            model_name="mine",
            is_robust=True,
            paper="-",
            summary="-",
            params=params,
        )


@every_defense
def test_a_model_is_named_by_its_defense_and_all_its_parameters_have_a_default(spec: DefenseSpec) -> None:
    assert defense_spec(spec.name) is spec
    assert spec.model_name.format(**spec.all_params)
    assert spec.summary


def test_marts_divergence_cannot_grow_with_the_logits() -> None:
    true, other, label = torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]]), torch.tensor([0])
    assert mart.objective(other, true, label, beta=1.0).item() == pytest.approx(-math.log(1e-12), rel=1e-4)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_unclipped_start_lies_in_the_ball_and_clipping_it_gives_the_random_start(norm: str, batch: Batch) -> None:
    x, _, ctx = batch
    threat = ThreatModel(norm, 0.5)
    start = threat.unclipped_start(x, ctx.draws)
    assert (threat.distance(start, x) <= threat.epsilon + threat.tolerance).all()
    assert not ((start >= 0) & (start <= 1)).all()
    assert torch.equal(threat.project(start, x), threat.random_start(x, ctx.draws))


def test_under_an_inner_attack_the_parameters_are_frozen_and_then_not(batch: Batch) -> None:
    x, y, ctx = batch
    model, frozen = network(), []
    model.register_forward_hook(lambda *_: frozen.append(not any(p.requires_grad for p in model.parameters())))
    ctx.craft(model, x, y, loss="cross-entropy", start="none")
    assert frozen
    assert all(frozen)
    assert all(p.requires_grad for p in model.parameters())


def test_dat_leaves_an_image_after_the_first_step_that_is_stationary_enough(batch: Batch) -> None:
    x, y, ctx = batch
    first = replace(ctx, epoch=1)
    model = network()
    x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="uniform", steps=1)
    expected = nn.functional.cross_entropy(model(x_adv), y)
    assert torch.equal(loss_of(DEFENSES["dat"], model, (x, y, first), c_max=1e9), expected)
    assert loss_of(DEFENSES["dat"], model, (x, y, first), c_max=1e-9) > expected  # then PGD goes on


def test_cascade_trains_on_own_one_step_examples_and_on_iterative_ones_of_the_source(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    own, others = (replace(ctx, draws=Draws.start(0, index)) for index in ctx.draws.index.split(32))
    one_step = own.craft(model, x[:32], y[:32], loss="cross-entropy", start="none", steps=1, rel_step_size=1.0)
    iterated = others.craft(ctx.first_stage, x[32:], y[32:], loss="cross-entropy", start="none")
    x_adv = torch.cat([one_step, iterated])
    features: list[Tensor] = []
    handle = model.fc2.register_forward_hook(lambda _module, inputs, _output: features.append(inputs[0]))
    losses = [nn.functional.cross_entropy(model(points), y) for points in (x, x_adv)]
    handle.remove()
    distance = (features[0] - features[1]).pow(2).sum(1).mean()
    expected = (losses[0] + 0.7 * losses[1]) / 1.7 + 0.01 * distance
    got = loss_of(DEFENSES["cascade"], model, batch, weight=0.7, similarity=0.01)
    torch.testing.assert_close(got, expected)


def test_mixed_attacks_one_half_at_an_epsilon_of_each_image_and_weighs_it(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    point = x[32:].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(point), y[32:], reduction="sum"), point)
    normal = replace(ctx.draws, index=ctx.draws.index[32:], restart=ctx.draws.restart[32:], step=ctx.draws.step[32:])
    epsilon = (normal.normal((1, 1, 1), stream=3).abs() / 2).clamp_max(1) * ctx.threat.epsilon
    assert epsilon.min() < 0.05 < 0.15 < epsilon.max()
    full = (x[32:] + ctx.threat.epsilon * gradient.sign()).clamp(0, 1)
    x_adv = x[32:] + (full - x[32:]) * epsilon / ctx.threat.epsilon
    clean = nn.functional.cross_entropy(model(x[:32]), y[:32], reduction="sum")
    adversarial = nn.functional.cross_entropy(model(x_adv), y[32:], reduction="sum")
    expected = (clean + 0.3 * adversarial) / (32 + 0.3 * 32)
    torch.testing.assert_close(loss_of(DEFENSES["mixed"], model, batch, weight=0.3), expected)


def test_gair_rst_weighs_two_divergences_by_the_correct_iterates_of_the_first(batch: Batch) -> None:
    x, y, ctx = batch
    model = network()
    with torch.no_grad():  # bias the head, so that some iterates are correct and some are not
        model.fc2.bias[:5] += 0.1
    by_divergence = [
        ctx.craft(model, x, y, loss="kl-divergence", start="gaussian", steps=steps) for steps in range(ctx.steps + 1)
    ]
    kappa = torch.stack([model(points).argmax(1) == y for points in by_divergence[:-1]]).sum(0)
    assert 0 < kappa.float().mean() < ctx.steps
    by_margin = ctx.craft(model, x, y, loss="margin", start="gaussian")
    clean = model(x).log_softmax(1)

    def divergence(points: Tensor) -> Tensor:
        log_p: Tensor = model(points).log_softmax(1)
        each: Tensor = (clean.exp() * (clean - log_p)).sum(1)
        return each

    weight = (1 + torch.tanh(0.5 + ctx.steps / 2 - kappa)) / 2
    both = weight * divergence(by_divergence[-1]) + (1 - weight) * divergence(by_margin)
    expected = nn.functional.cross_entropy(model(x), y) + 6 * both.mean()
    torch.testing.assert_close(loss_of(DEFENSES["gair-rst"], model, batch, beta=6.0, lam=0.5), expected)
