"""The options of the momentum attack, each against its equations, an image at a time and in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks import mi_fgsm
from attacks.api import attack
from attacks.draws import Draws
from attacks.errors import InputError
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from attacks.transfer_terms import diverse_gradient, smoothed

THREAT = ThreatModel("Linf", 0.05)
SETTINGS: dict[str, Any] = {"rel_step_size": 0.3, "momentum": 0.9}
Array = NDArray[np.float64]
Gradient = Callable[[Array], Array]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Conv2d(8, 8, 3, stride=2), nn.Softplus(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(72, 10)).double().eval().requires_grad_(False)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4, 3, 9, 9, generator=generator, dtype=torch.float64)
    return x, torch.randint(10, (4,), generator=generator)


def gradient_of(model: nn.Module, label: Tensor) -> Gradient:
    def gradient(point: Array) -> Array:
        leaf = torch.from_numpy(point.clip(0, 1))[None].requires_grad_()
        (found,) = torch.autograd.grad(F.cross_entropy(model(leaf), label[None]), leaf)
        array: Array = found[0].numpy()
        return array

    return gradient


def iterates(model: nn.Module, steps: int, threat: ThreatModel = THREAT, **options: Any) -> list[Tensor]:
    x, y = batch()
    oracle = Oracle(model, threat)
    state = mi_fgsm.init(x, y, threat, Draws.start(3, torch.arange(len(x))))
    found = []
    for _ in range(steps):
        state = mi_fgsm.step(oracle, state, **SETTINGS, **options)
        found.append(state.x_adv)
    return found


def moved(point: Array, clean: Array, velocity: Array) -> Array:
    after = point + SETTINGS["rel_step_size"] * THREAT.epsilon * np.sign(velocity)
    inside: Array = np.clip(np.clip(after, clean - THREAT.epsilon, clean + THREAT.epsilon), 0, 1)
    return inside


def test_nesterov_takes_the_gradient_where_the_velocity_leads(model: nn.Module) -> None:
    x, y = batch()
    expected = []
    for image, label in zip(x, y, strict=True):
        gradient, clean = gradient_of(model, label), image.numpy()
        point, velocity = clean, np.zeros(clean.shape)
        for _ in range(5):
            ahead = SETTINGS["rel_step_size"] * THREAT.epsilon * SETTINGS["momentum"] * velocity
            there = gradient(point + ahead)
            velocity = SETTINGS["momentum"] * velocity + there / np.abs(there).mean()
            point = moved(point, clean, velocity)
        expected.append(point)
    found = iterates(model, 5, nesterov=True)[-1]
    assert np.allclose(found, np.stack(expected), atol=1e-6)
    assert not torch.equal(found, iterates(model, 5)[-1])


def test_a_kernel_smooths_the_gradient_before_it_is_accumulated(model: nn.Module) -> None:
    x, y = batch()
    line = np.exp(-(np.linspace(-3, 3, 5) ** 2) / 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    expected = []
    for image, label in zip(x, y, strict=True):
        gradient, clean = gradient_of(model, label), image.numpy()
        point, velocity = clean, np.zeros(clean.shape)
        for _ in range(4):
            smooth = np.stack([scipy.ndimage.convolve(one, kernel, mode="constant") for one in gradient(point)])
            velocity = SETTINGS["momentum"] * velocity + smooth / np.abs(smooth).sum()
            point = moved(point, clean, velocity)
        expected.append(point)
    assert np.allclose(iterates(model, 4, kernel=5)[-1], np.stack(expected), atol=1e-6)


def test_the_kernel_averages() -> None:
    assert torch.allclose(smoothed(torch.ones(1, 2, 9, 9), 3)[..., 1:-1, 1:-1], torch.ones(7, 7))


def test_variance_of_the_gradient_around_the_last_point_is_added(model: nn.Module) -> None:
    x, y = batch()
    points, reach = 3, 1.5
    expected = []
    for place, (image, label) in enumerate(zip(x, y, strict=True)):
        gradient, clean = gradient_of(model, label), image.numpy()
        point, velocity, variance = clean, np.zeros(clean.shape), np.zeros(clean.shape)
        for step in range(4):
            here = gradient(point)
            whole = here + variance
            velocity = SETTINGS["momentum"] * velocity + whole / np.abs(whole).sum()
            draws = Draws(3, torch.tensor([place]), torch.tensor([0]), torch.tensor([step]))
            offsets = [2 * draws.uniform(clean.shape, stream=1 + 2 * k)[0].numpy() - 1 for k in range(points)]
            around = [gradient(point + reach * THREAT.epsilon * offset) for offset in offsets]
            variance = np.mean(around, 0) - here
            point = moved(point, clean, velocity)
        expected.append(point)
    found = iterates(model, 4, variance_points=points, variance_reach=reach)[-1]
    assert np.allclose(found, np.stack(expected), atol=1e-6)


def test_a_query_of_diverse_inputs_is_a_shrunken_image_on_black_ground() -> None:
    seen: list[Tensor] = []

    def classifier(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1)[:, :2]

    x = torch.ones(64, 1, 20, 20)
    draws = Draws.start(0, torch.arange(64))
    diverse_gradient(Oracle(classifier, THREAT), x, torch.zeros(64).long(), draws, probability=0.5, stream=0)
    lit = seen[0].sum((1, 2, 3)) / 400
    untouched = lit > 0.9999
    assert 0.3 < untouched.float().mean() < 0.7
    assert lit.min() > 0.9**2 - 0.01
    assert lit[~untouched].std() > 0.03  # each image has its own size,
    corners = seen[0][~untouched][:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners < 0.5).float().mean(0).min() > 0.1  # and its own place


def test_the_gradient_of_diverse_inputs_is_that_of_the_transformed_loss(model: nn.Module) -> None:
    x, y = batch()
    draws = Draws.start(5, torch.arange(len(x)))

    def gradient(at: Tensor) -> tuple[Tensor, Tensor]:
        losses: list[Tensor] = []

        def classifier(points: Tensor) -> Tensor:
            logits: Tensor = model(points)
            losses.append(F.cross_entropy(logits, y, reduction="none").detach())
            return logits

        found = diverse_gradient(Oracle(classifier, THREAT), at, y, draws, probability=1.0, stream=0)
        return losses[0], found

    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-5
    above, below = gradient(x + step * direction)[0], gradient(x - step * direction)[0]
    assert torch.allclose((above - below) / (2 * step), (gradient(x)[1] * direction).sum((1, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize("options", [{"nesterov": True}, {"variance_points": 2}, {"diversity": 1.0}])
def test_every_query_is_an_image(options: dict[str, Any]) -> None:
    asked: list[Tensor] = []

    def classifier(x: Tensor) -> Tensor:
        asked.append(x.detach())
        return x.flatten(1)[:, :2]

    oracle = Oracle(classifier, ThreatModel("Linf", 0.3))
    x, y = (3 * batch()[0] - 1).clamp(0, 1), torch.zeros(4, dtype=torch.long)
    state = mi_fgsm.init(x, y, oracle.threat, Draws.start(0, torch.arange(4)))
    for _ in range(4):
        state = mi_fgsm.step(oracle, state, **SETTINGS, **options)
    assert torch.cat(asked).min() >= 0
    assert torch.cat(asked).max() <= 1


def test_an_even_kernel_is_refused(model: nn.Module) -> None:
    with pytest.raises(InputError, match="odd number of pixels"):
        iterates(model, 1, kernel=4)


IN_L2 = ThreatModel("L2", 0.5)


def test_under_l2_a_step_goes_along_the_velocity_and_a_query_is_where_the_point_is(model: nn.Module) -> None:
    x, y = batch()
    line = np.exp(-(np.linspace(-3, 3, 5) ** 2) / 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    expected = []
    for image, label in zip(x, y, strict=True):
        gradient, clean = gradient_of(model, label), image.numpy()
        point, velocity = clean, np.zeros(clean.shape)
        for _ in range(5):
            smooth = np.stack([scipy.ndimage.convolve(one, kernel, mode="constant") for one in gradient(point)])
            velocity = SETTINGS["momentum"] * velocity + smooth / np.abs(smooth).sum()
            delta = point - clean + SETTINGS["rel_step_size"] * IN_L2.epsilon * velocity / np.linalg.norm(velocity)
            point = np.clip(clean + delta * min(1, IN_L2.epsilon / np.linalg.norm(delta)), 0, 1)
        expected.append(point)
    found = iterates(model, 5, IN_L2, kernel=5)[-1]
    assert np.allclose(found, np.stack(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "threat"),
    [(name, threat) for name in ("mi-fgsm", "ti-fgsm", "vmi-fgsm") for threat in (THREAT, IN_L2)][:-1],
)
def test_queries_are_no_farther_away_than_neighbours_reach(name: str, threat: ThreatModel, model: nn.Module) -> None:
    asked: list[Tensor] = []

    def classifier(points: Tensor) -> Tensor:
        asked.append(points.detach())
        logits: Tensor = model(points)
        return logits

    x, y = batch()
    oracle, state = Oracle(classifier, threat), mi_fgsm.init(x, y, threat, Draws.start(0, torch.arange(4)))
    for _ in range(3):
        state = mi_fgsm.step(oracle, state, **ATTACKS[name].step_params)
    reach = 2.5 if name == "vmi-fgsm" else 1.0
    assert max(float(threat.distance(points, x).max()) for points in asked) <= reach * threat.epsilon + 1e-6


@pytest.mark.parametrize("options", [{"nesterov": True}, {"variance_points": 2}])
def test_options_in_the_scale_of_linf_are_refused_in_another_norm(model: nn.Module, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="defined for Linf, got L2"):
        iterates(model, 1, IN_L2, **options)


@pytest.mark.parametrize("name", ["ni-fgsm", "vmi-fgsm"])
def test_attacks_in_the_scale_of_linf_are_refused_in_another_norm(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is defined for Linf, got L2"):
        attack(nn.Flatten(), torch.rand(2, 1, 2, 2), torch.zeros(2).long(), name, norm="L2", epsilon=0.5)
