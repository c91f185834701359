"""Branch and bound: its bounds hold where the assumed signs do, and it decides what a mixed-integer program decides."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from model_zoo.bounds import branches
from model_zoo.bounds.branches import Branches, Parts, tightened
from model_zoo.bounds.crown import lower_bounds
from model_zoo.bounds.crown_margins import best_margins
from model_zoo.bounds.graph import Network, graph
from model_zoo.bounds.interval_bounds import image_box
from model_zoo.bounds.milp import Program
from model_zoo.bounds.operations import Activation
from model_zoo.bounds.reach import Reach
from model_zoo.bounds.verify import FOUND, INFEASIBLE, OUT_OF_TIME, Answer, verify


class Residual(nn.Module):
    """A block with a shortcut, batch norm and two kinds of leaky ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.bn, self.act, self.fc = nn.BatchNorm2d(3), nn.LeakyReLU(0.1), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.act(self.conv1(x))
        out: Tensor = self.fc(nn.functional.relu(first + self.bn(self.conv2(first))).mean(dim=(2, 3)))
        return out


SMALL: dict[str, Callable[[], nn.Module]] = {
    "perceptron": lambda: nn.Sequential(
        *(nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU()),
        nn.Linear(10, 3),
    ),
    "convolutions": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, 3)),
    ),
    "residual": Residual,
    "max pooling": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU()),
        nn.Linear(8, 3),
    ),
}
"""Networks for images (N, 2, 4, 4) to three logits."""
NAMES = ("perceptron", "convolutions", "residual")


def of_one_image(name: str, epsilon: float) -> tuple[Network, Tensor, int, list[Reach]]:
    """A network, one image (1, C, H, W), its class and what every node can put out around it."""
    torch.manual_seed(0)
    model = SMALL[name]().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(1.5)
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    net = graph(model, (2, 4, 4))
    label = int(net.outputs(x)[-1].argmax())
    _, reaches = best_margins(net, image_box(x, epsilon), torch.tensor([label]), steps=0)
    return net, x, label, reaches


def points_around(x: Tensor, epsilon: float, n: int = 500) -> Tensor:
    """(n, C, H, W) random points of the ball around one image, half of them corners of it."""
    direction = 2 * torch.rand(n, *x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype) - 1
    direction[::2] = direction[::2].sign()
    return (x + epsilon * direction).clamp(0, 1)


def inputs_of_activations(net: Network, points: Tensor) -> dict[int, Tensor]:
    outputs = net.outputs(points)
    return {at: outputs[node.feeds[0]] for at, node in enumerate(net.nodes) if isinstance(node.operation, Activation)}


@pytest.mark.parametrize("name", NAMES)
def test_no_point_that_has_the_assumed_signs_has_a_smaller_margin_than_the_bound(name: str) -> None:
    net, x, label, reaches = of_one_image(name, 0.2)
    margin = branches._Margin(net, reaches, label, (label + 1) % 3)
    points = points_around(x[0], 0.2, 4000)
    values, inputs = margin.at(points), inputs_of_activations(net, points)
    generator, held, used = torch.Generator().manual_seed(0), 0, 0
    for pattern in range(20):
        signs, fits = {}, torch.ones(len(points), dtype=torch.bool)
        for at, z in inputs.items():
            asked = torch.rand(z[:1].shape, generator=generator) < 2 / z[0].numel()  # two of a layer or so
            signs[at] = torch.where(asked, z[pattern : pattern + 1].sign(), 0.0).to(torch.int8)
            fits &= ((z * signs[at] >= 0) | (signs[at] == 0)).flatten(1).all(1)
        parts, bound, _ = margin.climbed(Parts(signs, margin.whole.slopes, margin.whole.multipliers), 15)
        used += any(bool((each > 0).any()) for each in parts.multipliers.values())
        assert (values[fits] >= bound).all()
        held += int(fits.sum())
    assert held > 500
    assert used >= 3


def test_multipliers_of_the_wrong_sign_do_not_bound() -> None:
    net, x, label, reaches = of_one_image("perceptron", 0.2)
    margin = branches._Margin(net, reaches, label, (label + 1) % 3)
    points = points_around(x[0], 0.2)
    multipliers = {at: torch.full_like(of, -50.0) for at, of in margin.whole.multipliers.items()}
    z = inputs_of_activations(net, points)
    signs = {at: of[:1].sign() for at, of in z.items()}
    signed = {at: multipliers[at] * signs[at].unsqueeze(1) for at in signs}
    bound = lower_bounds(net, margin.row, net.last, reaches, margin.whole.slopes, multipliers=signed)
    assert margin.at(points[:1]) < bound.max()


@pytest.mark.parametrize("name", NAMES)
def test_tighter_boxes_hold_what_every_node_puts_out(name: str) -> None:
    net, x, _, reaches = of_one_image(name, 0.2)
    tighter = tightened(net, reaches)
    for before, after, out in zip(reaches, tighter, net.outputs(points_around(x[0], 0.2)), strict=True):
        assert ((after.box.lower <= out) & (out <= after.box.upper)).all()
        assert ((before.box.lower <= after.box.lower) & (after.box.upper <= before.box.upper)).all()
    stable = of_one_image(name, 0.0)[3]
    assert all(
        torch.equal(before.box.lower, after.box.lower)
        for before, after in zip(stable, tightened(net, stable), strict=True)
    )
    width = sum(float(reach.box.radius.sum()) for reach in reaches)
    assert sum(float(reach.box.radius.sum()) for reach in tighter) < width


def test_every_class_is_decided_as_a_mixed_integer_program_decides_it() -> None:
    outcomes = []
    for name, epsilon in itertools.product(NAMES, (0.05, 0.1)):
        net, x, label, reaches = of_one_image(name, epsilon)
        for other in {0, 1, 2} - {label}:
            answer = Branches(net).answer(reaches, label, other, 30.0)
            assert answer.outcome == Program(net).answer(reaches, label, other, 60.0).outcome
            outcomes.append(answer.outcome)
            if answer.point is not None:
                assert ((answer.point - x[0]).abs() <= epsilon + 1e-9).all()
                logits = net.outputs(answer.point.unsqueeze(0))[-1][0]
                assert logits[label] <= logits[other]
    assert set(outcomes) == {INFEASIBLE, FOUND}


def test_it_decides_what_the_bound_of_the_whole_box_leaves_open() -> None:
    decided = 0
    for epsilon in (0.1, 0.15, 0.2):
        net, _, label, reaches = of_one_image("perceptron", epsilon)
        for other in {0, 1, 2} - {label}:
            margin = branches._Margin(net, reaches, label, other)
            _, bound, _ = margin.climbed(margin.whole, 50)
            outcome = Branches(net).answer(reaches, label, other, 30.0).outcome
            decided += outcome == INFEASIBLE and float(bound) <= 0
    assert decided >= 1


def test_where_nothing_is_left_to_split_the_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches._Margin, "at", lambda _, points: torch.ones(len(points)))  # no point is looked at
    net, _, label, reaches = of_one_image("perceptron", 0.5)
    others = [other for other in (0, 1, 2) if other != label]
    assert OUT_OF_TIME in {answer.outcome for _, answer in verify(Branches(net), reaches, label, others, 2.0)}


def test_a_network_with_max_pooling_is_bounded_part_by_part_too() -> None:
    outcomes = set()
    for epsilon in (0.01, 0.1):
        net, x, label, reaches = of_one_image("max pooling", epsilon)
        for other in {0, 1, 2} - {label}:
            outcome = Branches(net).answer(reaches, label, other, 1.0).outcome
            margins = branches._Margin(net, reaches, label, other).at(points_around(x[0], epsilon, 4000))
            assert outcome != INFEASIBLE or (margins > 0).all()
            outcomes.add(outcome)
    assert INFEASIBLE in outcomes


def test_a_bound_that_is_not_a_number_certifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_bound(margin: branches._Margin, parts: Parts, _steps: int) -> tuple[Parts, Tensor, Tensor]:
        count = len(next(iter(parts.signs.values())))
        return parts, torch.full((count,), torch.nan), margin.reaches[0].box.center.expand(count, -1, -1, -1)

    monkeypatch.setattr(branches._Margin, "climbed", no_bound)
    net, _, label, reaches = of_one_image("perceptron", 0.01)
    assert Branches(net).answer(reaches, label, (label + 1) % 3, 0.5).outcome == OUT_OF_TIME


def test_the_time_of_an_image_is_that_of_all_its_classes() -> None:
    asked: list[float] = []

    class Slow:
        def answer(self, _reaches: Sequence[Reach], _label: int, _other: int, seconds: float) -> Answer:
            asked.append(seconds)
            clock[0] += 4.0
            return Answer(OUT_OF_TIME)

    clock = [0.0]
    answers = verify(Slow(), [], 0, [1, 2, 3, 4], 10.0, lambda: clock[0])
    assert asked == [10.0, 6.0, 2.0]
    assert len(answers) == 4
