"""The watched inner attack: the same points as the unwatched one, and images that stop where they should."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.dat import stationarity
from model_zoo.defenses.fat import after_mistakes
from model_zoo.defenses.search import Found, Iterates, search
from model_zoo.load import load_model
from model_zoo.registry import MODELS
from model_zoo.training.passes import counted

STEPS = 6
Setting = tuple[DigitsCNN, Tensor, Tensor, TrainingContext]


@pytest.fixture(scope="module")
def setting() -> Setting:
    """A naturally trained network and 200 images, of which some stay correct and some go wrong on the way."""
    split = balanced_subset(load("digits", "test", data_dir=Path("unused")), 200, seed=0)
    model = load_model(MODELS[0], Path("unused"), classes=10)
    assert isinstance(model, DigitsCNN)
    draws = Draws.start(0, split.index)
    return model, split.x, split.y, TrainingContext(ThreatModel("Linf", 0.12), draws, STEPS, 0.25)


def trajectory(setting: Setting) -> Tensor:
    """(STEPS + 1, N, C, H, W): every iterate, each by an attack of its own."""
    model, x, y, ctx = setting
    points = [ctx.craft(model, x, y, loss="cross-entropy", start="uniform", steps=k) for k in range(STEPS + 1)]
    return torch.stack(points)


def found(setting: Setting, tau: float | None) -> Found:
    model, x, y, ctx = setting
    stop = None if tau is None else after_mistakes(tau)
    return search(ctx, model, x, y, loss="cross-entropy", start="uniform", stop=stop)


@pytest.mark.parametrize(("loss", "start"), [("cross-entropy", "uniform"), ("kl-divergence", "gaussian")])
def test_a_search_that_nothing_stops_ends_where_the_inner_attack_does(setting: Setting, loss: str, start: str) -> None:
    model, x, y, ctx = setting
    assert torch.equal(
        search(ctx, model, x, y, loss=loss, start=start).x_adv, ctx.craft(model, x, y, loss=loss, start=start)
    )


def test_correct_iterates_are_counted_from_the_start_to_the_last_but_one(setting: Setting) -> None:
    model, _, y, _ = setting
    right = torch.stack([model(points).argmax(1) == y for points in trajectory(setting)[:-1]])
    assert torch.equal(found(setting, None).correct, right.sum(0))
    assert right.sum(0).unique().numel() > 3


@pytest.mark.parametrize("tau", [0, 1, 3])
def test_an_image_stops_where_a_counter_that_starts_at_tau_is_used_up(setting: Setting, tau: int) -> None:
    model, _, y, _ = setting
    points = trajectory(setting)
    wrong = torch.stack([model(iterate).argmax(1) != y for iterate in points])
    stops = []
    for image in range(len(y)):
        counter, place = tau, STEPS
        for k in range(STEPS):
            if wrong[k, image]:
                if counter == 0:
                    place = k
                    break
                counter -= 1
        stops.append(place)
    expected = points[torch.tensor(stops), torch.arange(len(y))]
    torch.testing.assert_close(found(setting, tau).x_adv, expected, rtol=0, atol=1e-6)
    assert len(set(stops)) > 2


def test_images_that_stopped_cost_no_more_passes(setting: Setting) -> None:
    spent = []
    for tau in (0.0, 1.0, None):
        with counted(setting[0]) as passes:
            found(setting, tau)
        spent.append(passes.backwards)
    assert spent[0] < spent[1] < spent[2] == STEPS * len(setting[2])


def test_a_search_that_stops_at_once_leaves_the_start(setting: Setting) -> None:
    model, x, y, ctx = setting

    def at_once(now: Iterates) -> Tensor:
        return now.rows >= 0

    left = search(ctx, model, x, y, loss="cross-entropy", start="uniform", stop=at_once)
    assert torch.equal(left.x_adv, ctx.threat.random_start(x, ctx.draws))
    assert not left.correct.any()


def test_stationarity_is_the_closed_form_inside_the_pixel_range_and_never_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    threat = ThreatModel("Linf", 0.1)
    x = 0.3 + 0.4 * torch.rand(50, 1, 8, 8, generator=generator)
    delta = 0.1 * (2 * torch.rand(x.shape, generator=generator) - 1)
    gradient = torch.randn(x.shape, generator=generator)
    expected = 0.1 * gradient.abs().flatten(1).sum(1) - (delta * gradient).flatten(1).sum(1)
    torch.testing.assert_close(stationarity(threat, x, x + delta, gradient), expected)
    at_the_edge = threat.project(x.round() + delta, x.round())
    assert (stationarity(threat, x.round(), at_the_edge, gradient) >= 0).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_best_linear_step_is_stationary(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    threat = ThreatModel(norm, 0.1)
    x = torch.rand(50, 1, 8, 8, generator=generator)
    gradient = torch.randn(x.shape, generator=generator)
    best = threat.project(x + threat.epsilon * threat.direction(gradient), x)
    assert torch.equal(stationarity(threat, x, best, gradient), torch.zeros(50))
    assert (stationarity(threat, x, x, gradient) > 0).all()
