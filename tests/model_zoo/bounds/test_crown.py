"""CROWN's bounds hold, are as tight as they should be, and equal a linear program's; so with rounding."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.models.normalisation import Normalize
from attacks.models.user_model import Quirks, UserModel
from model_zoo.architectures.registry import build, find
from model_zoo.bounds import convex, interval_bounds
from model_zoo.bounds.crown import RULES, lower_bounds, output_box, reaches_by
from model_zoo.bounds.crown_margins import best_margins, interval_margins, margins_by
from model_zoo.bounds.graph import Network, graph
from model_zoo.bounds.interval_bounds import image_box
from model_zoo.bounds.reach import interval_reaches


class Residual(nn.Module):
    """A block with a shortcut, batch norm, and leaky ReLU by module and by function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, affine=False)
        self.act = nn.LeakyReLU(0.1)
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.act(self.bn1(self.conv1(x)))
        second = nn.functional.leaky_relu(first + self.bn2(self.conv2(first)), 0.2)
        out: Tensor = self.fc(second.mean(dim=(2, 3)))
        return out


class Shared(nn.Module):
    """A convolution that is used twice, and a shortcut from the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.conv(self.relu(self.conv(x)))) + x
        out: Tensor = self.fc((h + nn.functional.relu(h)).flatten(1))
        return out


SMALL: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3)
    ),
    "normalised convolutions": lambda: nn.Sequential(
        *(Normalize((0.4, 0.6), (0.5, 0.25)), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(4, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
    ),
    "residual": Residual,
    "shared": Shared,
    "grouped and dilated": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 2, dilation=2, padding=1, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=2)),
        *(nn.LeakyReLU(0.3), nn.Conv2d(4, 6, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)),
    ),
    "max pooling": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU()),
        nn.Linear(8, 3),
    ),
    "pooling that overlaps": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(4, 2, 3)),
        *(nn.ReLU(), nn.AvgPool2d(2, stride=1, padding=1), nn.Flatten(), nn.Linear(18, 3)),
    ),
}
"""Networks for images (N, 2, 4, 4) to three logits."""


def network(name: str) -> nn.Module:
    """Random weights and running statistics, in eval mode."""
    torch.manual_seed(0)
    model = SMALL[name]() if name in SMALL else build(name)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def images(n: int = 4, shape: tuple[int, ...] = (2, 4, 4)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def exact(model: nn.Module, shape: tuple[int, ...] = (2, 4, 4)) -> Network:
    """The graph in arithmetic without rounding."""
    return replace(graph(model, shape), unit=0.0)


def clean_margins(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y.unsqueeze(1)) - logits


def points_around(x: Tensor, epsilon: float, n: int = 500) -> Tensor:
    """(n, C, H, W) random points of the ball around one image, half of them corners of it."""
    direction = 2 * torch.rand(n, *x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype) - 1
    direction[::2] = direction[::2].sign()
    return (x + epsilon * direction).clamp(0, 1)


def worst_points(model: nn.Module, x: Tensor, y: int, epsilon: float) -> Tensor:
    """(K - 1, C, H, W) points of the ball around one image where PGD made the margin of each other class small."""
    others = [k for k in range(3) if k != y]
    points = x.expand(len(others), *x.shape)
    for step in range(30):
        points = points.detach().requires_grad_()
        logits = model(points)
        (gradient,) = torch.autograd.grad(sum(logits[row, k] - logits[row, y] for row, k in enumerate(others)), points)
        moved = points + epsilon / (1 + step / 4) * gradient.sign()
        points = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp(0, 1)
    return points.detach()


# The graph


@pytest.mark.parametrize("name", [*SMALL, "digits-cnn", "resnet-18-w16", "preact-resnet-18", "wrn-10-1", "small-cnn"])
def test_the_nodes_of_a_network_compute_what_it_computes(name: str) -> None:
    model, shape = network(name), (2, 4, 4) if name in SMALL else find(name).input_shape
    x, _ = images(2, shape)
    found = graph(model, shape)
    torch.testing.assert_close(found.outputs(x)[-1], model.double()(x))
    assert all(node.shape == out.shape[1:] for node, out in zip(found.nodes, found.outputs(x), strict=True))


def test_a_users_own_model_is_bounded_with_the_normalisation_in_front_of_it() -> None:
    inner = network("perceptron")
    model = UserModel(inner, Quirks())
    x, _ = images()
    torch.testing.assert_close(graph(model, (2, 4, 4)).outputs(x)[-1], inner.double()(x))
    with pytest.raises(InputError, match="certify by smoothing") as error:
        graph(UserModel(inner, Quirks(output="logits")), (2, 4, 4))
    assert "\n" not in str(error.value)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * 2


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.Tanh(), nn.Linear(4, 3)), "no bound is known for Tanh"),
        (Twice(), "layer mul cannot be bounded"),
        (nn.Sequential(nn.MaxPool2d(3, ceil_mode=True), nn.Flatten(), nn.Linear(8, 3)), "known for MaxPool2d"),
        (nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten()), "ends in a linear layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.LeakyReLU(-1), nn.Linear(4, 3)), "its leak is -1"),
    ],
    ids=["tanh", "times", "ceil", "convolution", "leak"],
)
def test_what_no_bound_is_known_for_is_named_in_one_line(model: nn.Module, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        graph(model.eval(), (2, 4, 4))
    assert "\n" not in str(error.value)


# Soundness


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("name", SMALL)
def test_no_point_of_the_ball_has_a_smaller_margin_than_any_bound(name: str, epsilon: float) -> None:
    model, (x, y) = network(name), images()
    found, image = exact(model), image_box(x, epsilon)
    bounds = [margins_by(found, image, y, rule) for rule in RULES]
    bounds += [best_margins(found, image, y)[0], interval_margins(found, y, interval_reaches(found, image))]
    for n in range(len(x)):
        worst = worst_points(model.double(), x[n], int(y[n]), epsilon)
        points = torch.cat([points_around(x[n], epsilon), worst])
        margins = clean_margins(model(points), y[n].expand(len(points)))
        for bound in bounds:
            assert (margins >= bound[n] - 1e-9).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SMALL)
def test_every_node_stays_inside_its_box(name: str, rule: str) -> None:
    model, (x, _) = network(name), images(1)
    found = exact(model)
    reaches, slopes = reaches_by(found, image_box(x, 0.1), rule)
    for place, out in enumerate(found.outputs(points_around(x[0], 0.1))):
        assert (out >= reaches[place].box.lower - 1e-9).all()
        assert (out <= reaches[place].box.upper + 1e-9).all()
        if place and place in slopes:
            box = output_box(found, place, reaches, slopes)
            assert (out >= box.lower - 1e-9).all()
            assert (out <= box.upper + 1e-9).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_float32_pass_stays_inside_the_bounds_of_one_and_leaves_those_of_exact_arithmetic(name: str) -> None:
    """At epsilon 0 the exact bounds are points; those of a float32 pass hold its rounding, and little more."""
    model, (x, y) = network(name), images(200)
    x = x.float().double()
    image = image_box(x, 0.0)
    rounded = clean_margins(model.float()(x.float()).double(), y)
    found = graph(model, (2, 4, 4))
    bound = best_margins(found, image, y)[0]
    points = best_margins(replace(found, unit=0.0), image, y)[0]
    others = torch.ones_like(bound, dtype=torch.bool).scatter(1, y.unsqueeze(1), False)
    assert (rounded >= bound)[others].all()
    assert (rounded < points - 1e-12)[others].any()
    assert (points - bound)[others].max() < 1e-4


@pytest.mark.parametrize("leak", [0.3, 0.01, 0.2, 0.7])
def test_a_leak_that_float32_rounds_is_part_of_the_noise(leak: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.LeakyReLU(leak), nn.Linear(1, 1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.0)
        model[1].weight.fill_(-1.0)  # type: ignore[operator]
    x = torch.rand(20_000, 1, 1, 1, generator=torch.Generator().manual_seed(0)).clamp_min(1e-3)
    reaches = interval_reaches(graph(model, (1, 1, 1)), image_box(x.double(), 0.0))
    z, exact, noise = -x.view(-1, 1), leak * -x.double().view(-1, 1), reaches[3].noise
    assert noise is not None
    assert ((nn.functional.leaky_relu(z, leak).double() - exact).abs() <= noise).all()


# Tightness


def test_chords_are_the_convex_outer_bound() -> None:
    torch.manual_seed(0)
    model, (x, y) = build("digits-cnn").eval(), images(3, (1, 8, 8))
    found, image = exact(model, (1, 8, 8)), image_box(x, 0.05)
    reaches, slopes = reaches_by(found, image, "chord")
    rows = interval_bounds.margin_rows(y, found.nodes[-1].operation.weight)  # type: ignore[union-attr]
    ours = torch.maximum(lower_bounds(found, rows, found.last, reaches, slopes), interval_margins(found, y, reaches))
    torch.testing.assert_close(ours, convex.margins(model.double(), x, y, 0.05))


@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("name", ["perceptron", "normalised convolutions", "residual"])
def test_the_best_bound_is_at_least_as_tight_as_intervals_and_every_rule(name: str, epsilon: float, steps: int) -> None:
    (x, y) = images(20)
    found, image = exact(network(name)), image_box(x, epsilon)
    best = best_margins(found, image, y, steps=steps)[0]
    alone = [margins_by(found, image, y, rule) for rule in RULES]
    for bound in (*alone, interval_margins(found, y, interval_reaches(found, image))):
        assert (best >= bound - 1e-12).all()
    if epsilon > 0.02 and steps:
        assert (best > torch.stack(alone).amax(0) + 1e-6).any()


@pytest.mark.parametrize("name", SMALL)
def test_bounds_begin_at_the_clean_margins(name: str) -> None:
    model, (x, y) = network(name), images()
    for rule in RULES:
        bound = margins_by(exact(model), image_box(x, 0.0), y, rule)
        torch.testing.assert_close(bound, clean_margins(model.double()(x), y))


def test_from_the_pixels_forward_and_from_the_neurons_back_are_the_same_box(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    found, (x, _) = graph(build("digits-cnn").eval(), (1, 8, 8)), images(2, (1, 8, 8))
    reaches, slopes = reaches_by(found, image_box(x, 0.05), "adaptive")
    forward = output_box(found, 3, reaches, slopes)
    monkeypatch.setattr("model_zoo.bounds.crown._columns", lambda *_: None)
    back = output_box(found, 3, reaches, slopes)
    torch.testing.assert_close(forward.lower, back.lower)
    torch.testing.assert_close(forward.upper, back.upper)


# A linear program over the same lines

Weights = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def perceptron() -> tuple[nn.Module, Weights]:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    ).double()
    layers = [module for module in model if isinstance(module, nn.Linear)]
    return model, [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in layers]


def lowest(
    objective: NDArray[np.float64], weights: Weights, pixels: NDArray[np.float64], around: list[NDArray[np.float64]]
) -> float:
    """The least value of a linear function of what the last of some layers puts out, by a solver.

    Args:
        objective: (M,) of the outputs of the last layer of `weights`.
        pixels: (4, 2) bounds of the image.
        around: for each layer but the last (n, 3): h >= a z and h <= k z + d.
    """
    sizes = [len(pixels), *(len(b) for _, b in weights[:-1])]
    starts = np.cumsum([0, *sizes])
    rows, limits = [], []
    for layer, lines in enumerate(around):
        w, b = weights[layer]
        for neuron, (a, k, d) in enumerate(lines):
            for sign, slope, shift in ((1.0, a, 0.0), (-1.0, k, d)):
                row = np.zeros(starts[-1])
                row[starts[layer] : starts[layer + 1]] = sign * slope * w[neuron]
                row[starts[layer + 1] + neuron] = -sign
                rows.append(row)
                limits.append(-sign * slope * b[neuron] + (shift if sign < 0 else 0.0))
    cost = np.zeros(starts[-1])
    cost[starts[-2] :] = objective @ weights[-1][0]
    free = [(None, None)] * (starts[-1] - len(pixels))
    solved = linprog(
        cost, A_ub=np.array(rows) if rows else None, b_ub=limits if rows else None, bounds=[*map(tuple, pixels), *free]
    )
    assert solved.success
    return float(solved.fun + objective @ weights[-1][1])


def around_relus(l: NDArray[np.float64], u: NDArray[np.float64], rule: str) -> NDArray[np.float64]:  # noqa: E741
    lines = []
    for low, high in zip(l, u, strict=True):
        if low >= 0 or high <= 0:
            lines.append((float(low >= 0), float(low >= 0), 0.0))
        else:
            k = high / (high - low)
            lines.append(({"zero": 0.0, "adaptive": float(high >= -low), "chord": k}[rule], k, -k * low))
    return np.array(lines)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("epsilon", [0.15, 0.2])
def test_a_rules_bounds_are_those_of_a_linear_program_over_the_same_lines(rule: str, epsilon: float) -> None:
    model, weights = perceptron()
    x, y = images(3, (1, 2, 2))
    ours = margins_by(exact(model, (1, 2, 2)), image_box(x, epsilon), y, rule)
    unstable = 0
    for n in range(3):
        flat = x[n].flatten().numpy()
        pixels = np.stack([np.maximum(flat - epsilon, 0), np.minimum(flat + epsilon, 1)], 1)
        around: list[NDArray[np.float64]] = []
        for layer in (1, 2):
            units = np.eye(len(weights[layer - 1][1]))
            low = np.array([lowest(unit, weights[:layer], pixels, around) for unit in units])
            high = np.array([-lowest(-unit, weights[:layer], pixels, around) for unit in units])
            unstable += int(((low < 0) & (high > 0)).sum())
            around.append(around_relus(low, high, rule))
        for k in range(3):
            solved = lowest(np.eye(3)[y[n]] - np.eye(3)[k], weights, pixels, around)
            assert ours[n, k].item() == pytest.approx(solved, abs=1e-6)
    assert unstable > 5


def test_optimised_slopes_of_one_hidden_layer_come_near_the_triangle_relaxation_and_never_beyond() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    first, last = model[1], model[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias[0] -= 1  # so that no margin is positive, and all slopes climb
    x, epsilon = images(1, (1, 2, 2))[0], 0.5
    y, found, image = torch.tensor([0]), exact(model, (1, 2, 2)), image_box(x, 0.5)
    (w, b), (v, c) = ((m.weight.detach().numpy(), m.bias.detach().numpy()) for m in (first, last))
    z = interval_reaches(found, image)[2].box
    low, high = z.lower[0].numpy(), z.upper[0].numpy()
    chords = around_relus(low, high, "chord")[:, 1:]
    one = np.eye(12)
    crossing = (low < 0) & (high > 0)
    under = np.concatenate([np.concatenate([w, -one], 1)[high > 0], np.concatenate([0 * w, -one], 1)])
    under_limits = np.concatenate([-b[high > 0], np.zeros(12)])
    over = np.concatenate([-chords[:, :1] * w, one], 1)
    flat = x.flatten().numpy()
    limits = [*zip(np.maximum(flat - epsilon, 0), np.minimum(flat + epsilon, 1), strict=True), *[(0, None)] * 12]
    few, many = (best_margins(found, image, y, steps=steps)[0][0] for steps in (0, 200))
    assert crossing.any()
    for k in (1, 2):
        solved = linprog(
            np.concatenate([np.zeros(4), v[0] - v[k]]),
            A_ub=np.concatenate([under, over]),
            b_ub=np.concatenate([under_limits, chords[:, 0] * b + chords[:, 1]]),
            bounds=limits,
        )
        optimum = solved.fun + c[0] - c[k]
        assert few[k] <= many[k] <= optimum + 1e-9
        assert many[k] > optimum - 1e-2
    assert (few < many - 5e-3).any()
