"""Bounds hold, nest, and are exact where they can be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.models.normalisation import Normalize
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from model_zoo.architectures.registry import build, find
from model_zoo.bounds import certified, convex, interval_bounds
from model_zoo.bounds.convex import Step, relax
from model_zoo.bounds.interval_bounds import Box, image_box, propagate
from model_zoo.bounds.layers import Convolution, Dense, layers
from model_zoo.defenses.context import TrainingContext
from model_zoo.load import load_model
from model_zoo.registry import MODELS

Margins = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
Certified = Callable[[nn.Module, Tensor, Tensor, float], Tensor]

both_bounds = pytest.mark.parametrize("margins", [interval_bounds.margins, convex.margins], ids=["intervals", "convex"])
CHAINS = ["digits-cnn", "small-cnn", "strided-cnn"]


def network(name: str) -> nn.Module:
    """Random weights in float64; SmallCNN's last layer, which starts at zero, is made random, too."""
    torch.manual_seed(0)
    model = build(name).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def images(name: str, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *find(name).input_shape, generator=generator, dtype=torch.float64)


def perceptron(*widths: int) -> nn.Sequential:
    """Images (N, 1, 2, 2) through hidden layers of these widths to three logits, in float64."""
    torch.manual_seed(0)
    modules: list[nn.Module] = [nn.Flatten()]
    for before, width in zip((4, *widths), widths, strict=False):
        modules += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear((4, *widths)[-1], 3)).double()


def clean_margins(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y.unsqueeze(1)) - logits


def points_around(x: Tensor, epsilon: float, n: int) -> Tensor:
    """(n, C, H, W) random points of the ball around one image, half of them corners of it."""
    generator = torch.Generator().manual_seed(2)
    direction = 2 * torch.rand(n, *x.shape, generator=generator, dtype=x.dtype) - 1
    direction[::2] = direction[::2].sign()
    return (x + epsilon * direction).clamp(0, 1)


@pytest.fixture
def boxed() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network, eight images and labels."""
    x = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return perceptron(12, 10, 8), x, torch.arange(8) % 3


# Layers


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fc(x)
        return out


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Viewing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 4)


@pytest.mark.parametrize("name", CHAINS)
def test_the_layers_of_a_network_compute_what_it_computes(name: str) -> None:
    model, x = network(name), images(name)
    out = x
    for layer in layers(model):
        out = layer(out)
    torch.testing.assert_close(out, model(x))


def test_normalisation_is_a_layer_and_dropout_is_none() -> None:
    model = nn.Sequential(
        Normalize((0.5, 0.2), (0.5, 0.25)), nn.Conv2d(2, 3, 2, bias=False), nn.Flatten(), nn.Dropout(), nn.Linear(3, 2)
    )
    x = torch.rand(5, 2, 2, 2)
    out = x
    for layer in layers(model):
        out = layer(out)
    torch.testing.assert_close(out, model.eval()(x))


def test_layers_hold_the_parameters_themselves() -> None:
    model = build("digits-cnn")
    weights = [layer.weight for layer in layers(model) if isinstance(layer, Dense | Convolution)]
    parameters = [value for name, value in model.named_parameters() if name.endswith("weight")]
    assert len(weights) == len(parameters) == 4
    assert all(weight is parameter for weight, parameter in zip(weights, parameters, strict=True))


@pytest.mark.parametrize(
    ("size", "convolution"),
    [
        (8, nn.Conv2d(4, 6, 3)),
        (9, nn.Conv2d(4, 6, 3, stride=2, padding=1)),
        (10, nn.Conv2d(4, 6, 4, stride=3, padding=1)),
        (11, nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2)),
    ],
)
def test_the_transposed_convolution_is_the_adjoint(size: int, convolution: nn.Conv2d) -> None:
    layer = layers(nn.Sequential(convolution, nn.Linear(1, 1)))[0]
    assert isinstance(layer, Convolution)
    v = torch.randn(2, 3, 4, size, size)
    out = layer.linear(v)
    rows = torch.randn_like(out)
    back = layer.transpose(rows, (4, size, size))
    torch.testing.assert_close((out * rows).flatten(2).sum(2), (v * back).flatten(2).sum(2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (build("resnet-18"), "layer bn1 cannot be bounded: no bound is known for BatchNorm2d"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(2, 2)), "no bound is known for Tanh"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(4, 2)), "no bound is known for Flatten"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(8, 2)), "known for Conv2d"),
        (Viewing(), "layer view cannot be bounded: no bound is known for view"),
    ],
    ids=["batch-norm", "tanh", "flatten", "same-padding", "view"],
)
def test_a_layer_without_a_bound_is_named_in_one_line(model: nn.Module, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        layers(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (nn.Sequential(nn.Flatten(), Residual()), "layer add cannot be bounded: it is not fed by the layer before it"),
        (Branching(), "Branching, which cannot be traced"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU()), "ends in a linear layer"),
    ],
    ids=["residual", "branching", "relu"],
)
def test_a_network_that_is_no_chain_to_logits_is_refused(model: nn.Module, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        layers(model)


def test_max_pooling_has_intervals_but_no_convex_bound() -> None:
    model, x = network("small-cnn"), images("small-cnn")
    assert interval_bounds.margins(model, x, torch.tensor([0, 1]), 0.01).isfinite().all()
    with pytest.raises(InputError, match="layer MaxPool2d cannot be bounded by convex relaxation"):
        convex.margins(model, x, torch.tensor([0, 1]), 0.01)


# Soundness


@pytest.mark.parametrize("name", CHAINS)
def test_the_interval_box_holds_the_logits_of_a_thousand_points(name: str) -> None:
    model, x = network(name), images(name, 1)
    box = propagate(layers(model), image_box(x, 0.02))
    with torch.no_grad():
        logits = model(points_around(x[0], 0.02, 1000))
    assert (logits >= box.lower - 1e-9).all()
    assert (logits <= box.upper + 1e-9).all()


@both_bounds
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.4])
def test_no_point_of_the_ball_has_a_smaller_margin_than_its_bound(
    margins: Margins, boxed: tuple[nn.Module, Tensor, Tensor], epsilon: float
) -> None:
    model, x, y = boxed
    bounds = margins(model, x, y, epsilon)
    for n in range(len(x)):
        found = clean_margins(model(points_around(x[n], epsilon, 1000)), y[n].expand(1000))
        assert (found >= bounds[n] - 1e-9).all()


@pytest.mark.parametrize(
    ("proof", "epsilon"), [(certified.by_intervals, 0.004), (certified.by_convex_bound, 0.06)], ids=["ibp", "convex"]
)
def test_pgd_breaks_no_certified_image_but_others(proof: Certified, epsilon: float) -> None:
    split = balanced_subset(load("digits", "test", data_dir=Path("unused")), 100, seed=0)
    model = load_model(next(spec for spec in MODELS if spec.name == "natural"), Path("unused"), classes=10)
    proven = proof(model, split.x, split.y, epsilon)
    assert 10 < int(proven.sum()) < 95
    attack = TrainingContext(ThreatModel("Linf", epsilon), Draws.start(0, split.index), steps=100, rel_step_size=0.1)
    x_adv = attack.craft(model, split.x, split.y, loss="cross-entropy", start="uniform")
    right = model(x_adv).argmax(1) == split.y
    assert right[proven].all()
    assert not right.all()


@both_bounds
def test_bounds_fall_with_epsilon_and_begin_at_the_clean_margins(
    margins: Margins, boxed: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, x, y = boxed
    torch.testing.assert_close(margins(model, x, y, 0.0), clean_margins(model(x), y))
    falling = [margins(model, x, y, epsilon) for epsilon in (0.0, 0.01, 0.05, 0.1, 0.2, 0.5)]
    for wider, bound in zip(falling[1:], falling, strict=False):
        assert (wider <= bound + 1e-9).all()
        assert (wider < bound - 1e-6).any()


@pytest.mark.parametrize("proof", [certified.by_intervals, certified.by_convex_bound], ids=["ibp", "convex"])
def test_at_epsilon_zero_the_certified_images_are_those_classified_correctly(proof: Certified) -> None:
    torch.manual_seed(0)
    model, x = build("digits-cnn"), torch.rand(120, 1, 8, 8)
    y = model(x).argmax(1)
    y[::3] = (y[::3] + 1) % 10
    assert torch.equal(proof(model, x, y, 0.0), torch.arange(120) % 3 != 0)
    assert next(model.parameters()).dtype == torch.float32
    assert model.training


# Tightness


@both_bounds
@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_on_a_linear_model_the_bound_is_the_closed_form(margins: Margins, epsilon: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3).double()
    x, y = torch.rand(6, 1, 2, 2, dtype=torch.float64), torch.arange(6) % 3
    weights = linear.weight[y].unsqueeze(1) - linear.weight
    flat = x.flatten(1).unsqueeze(1)
    worst = torch.where(weights > 0, (flat - epsilon).clamp_min(0), (flat + epsilon).clamp_max(1))
    expected = (weights * worst).sum(2) + linear.bias[y].unsqueeze(1) - linear.bias
    torch.testing.assert_close(margins(nn.Sequential(nn.Flatten(), linear), x, y, epsilon), expected)


@pytest.mark.parametrize("widths", [(12,), (12, 10), (12, 10, 8)], ids=str)
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.3, 1.0])
def test_the_convex_bound_is_never_looser_than_intervals(widths: tuple[int, ...], epsilon: float) -> None:
    model = perceptron(*widths)
    x, y = torch.rand(50, 1, 2, 2, dtype=torch.float64), torch.arange(50) % 3
    loose, tight = interval_bounds.margins(model, x, y, epsilon), convex.margins(model, x, y, epsilon)
    assert (tight >= loose - 1e-12).all()
    if epsilon <= 0.1:
        assert (tight > loose + 1e-6).any()


def test_where_no_relu_can_change_sign_the_convex_bound_is_exact() -> None:
    model = perceptron(6, 5)
    x, y = torch.rand(4, 1, 2, 2, dtype=torch.float64) * 0.8 + 0.1, torch.tensor([0, 1, 2, 0])
    epsilon = 1e-4
    jacobians = torch.stack([torch.autograd.functional.jacobian(model, image.unsqueeze(0))[0, :, 0] for image in x])
    slopes = (jacobians[torch.arange(4), y].unsqueeze(1) - jacobians).flatten(2).abs().sum(2)
    expected = clean_margins(model(x), y) - epsilon * slopes
    torch.testing.assert_close(convex.margins(model, x, y, epsilon), expected, rtol=0, atol=1e-10)


def test_the_convex_bound_lies_below_the_linear_program_that_it_relaxes_and_near_it() -> None:
    """min f_y - f_k over x, z = W x + b, and each h between max(z, 0) and its chord: by a solver of linear programs."""
    model, x, epsilon = perceptron(12), torch.rand(1, 1, 2, 2, dtype=torch.float64), 0.15
    first, last = model[1], model[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    (w, b), (v, c) = ((m.weight.detach().numpy(), m.bias.detach().numpy()) for m in (first, last))
    box = image_box(x, epsilon)
    pixels = np.stack([box.lower.flatten().numpy(), box.upper.flatten().numpy()], 1)
    z = propagate(layers(model)[:2], box)
    low, high = z.lower[0].detach().numpy(), z.upper[0].detach().numpy()
    crossing = (low < 0) & (high > 0)
    assert 0 < crossing.sum() < 12
    slope = np.where(crossing, high / (high - low), low >= 0)
    one = np.eye(12)
    above = np.concatenate([w, -one], 1), -b  # W x + b <= h
    chord = np.concatenate([-slope[:, None] * w, one], 1), slope * b - np.where(crossing, slope * low, 0)
    limits = [*pixels, *np.stack([np.maximum(low, 0), np.maximum(high, 0)], 1)]
    active = high > 0  # a ReLU that is always off has h = 0 by its limits, and neither line
    bound = convex.margins(model, x, torch.tensor([0]), epsilon)[0].detach().numpy()
    for k in (1, 2):
        solved = linprog(
            np.concatenate([np.zeros(4), v[0] - v[k]]),
            A_ub=np.concatenate([above[0][active], chord[0][active]]),
            b_ub=np.concatenate([above[1][active], chord[1][active]]),
            bounds=limits,
        )
        optimum = solved.fun + c[0] - c[k]
        assert bound[k] <= optimum + 1e-9
        assert bound[k] >= optimum - 0.1


def test_columns_from_the_pixels_and_rows_from_the_neurons_are_the_same_bound() -> None:
    model = network("digits-cnn")
    image = image_box(images("digits-cnn"), 0.05)
    first, relu, second, *_ = layers(model)
    z = propagate([first], image)
    shape = z.lower.shape[1:]
    steps = [Step(first, image.lower.shape[1:]), Step(relu, shape, relax(z)), Step(second, shape)]
    center, radius = convex._forward(steps, image, None)
    rows = torch.eye(center[0].numel(), dtype=center.dtype).view(1, -1, *center.shape[1:]).expand(2, -1, -1, -1, -1)
    for part, other in zip((center, radius), convex._backward(rows, steps, image), strict=True):
        torch.testing.assert_close(part.flatten(1), other)


def test_random_projections_estimate_the_norms_over_pixels() -> None:
    model = network("digits-cnn")
    image = image_box(images("digits-cnn"), 0.05)
    first, relu, second, *_ = layers(model)
    z = propagate([first], image)
    steps = [Step(first, (1, 8, 8)), Step(relu, z.lower.shape[1:], relax(z)), Step(second, z.lower.shape[1:])]
    uniform = torch.rand(1001, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, exact = convex._forward(steps, image, None)
    _, estimated = convex._forward(steps, image, (torch.pi * (uniform - 0.5)).tan())
    ratio = (estimated / exact).flatten()
    assert ratio.mean().item() == pytest.approx(1, abs=0.03)
    assert ((ratio > 0.7) & (ratio < 1.3)).all()


def test_a_box_is_cut_with_the_pixel_range_and_with_another_box() -> None:
    box = image_box(torch.tensor([[0.1, 0.5, 0.9]]), 0.25)
    torch.testing.assert_close(box.lower, torch.tensor([[0.0, 0.25, 0.65]]))
    torch.testing.assert_close(box.upper, torch.tensor([[0.35, 0.75, 1.0]]))
    met = box.meet(Box(torch.tensor([[0.2, 0.0, 0.7]]), torch.tensor([[0.3, 0.6, 2.0]])))
    torch.testing.assert_close(met.lower, torch.tensor([[0.2, 0.25, 0.7]]))
    torch.testing.assert_close(met.upper, torch.tensor([[0.3, 0.6, 1.0]]))
