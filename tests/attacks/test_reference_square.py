"""Square beside the reference's: the schedule of its squares, their shapes, its start, and every proposal it makes.

The reference draws one square for a batch, so it attacks one image at a time here; it is given our draws.
"""

import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

from attacks import square
from attacks.draws import Draws
from attacks.oracle import Oracle, Query
from attacks.threat_model import ThreatModel

P_INIT = 0.8
TOLERANCE = 1e-6
"""Under Linf the points were found to differ by 1e-17 at most, under L2 by 4e-11. There the reference adds 1e-12 to the
length that it divides by, so that its points are so much short of epsilon, and the next square spends the root of it.
"""

THREATS = [ThreatModel("Linf", 0.01), ThreatModel("L2", 0.2)]
GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for shape in ((300, 24), (24, 6)))
FIRST = torch.cat([FIRST, FIRST])


@pytest.fixture(autouse=True)
def patterns_in_float64(float64: None) -> Iterator[None]:  # noqa: ARG001
    """No pattern is kept from or for tests in float32."""
    square._pattern.cache_clear()
    yield
    square._pattern.cache_clear()


def network(x: Tensor) -> Tensor:
    """Six classes, of images of up to 600 values."""
    return (0.3 * (x.flatten(1) - 0.5) @ FIRST[: x[0].numel()]).sin() @ SECOND


def reference(norm: str, epsilon: float = 0.1, *, queries: int = 5000) -> SquareAttack:
    """As the reference's ensemble has it."""
    attack = SquareAttack(
        network, p_init=P_INIT, n_queries=queries, eps=epsilon, norm=norm, resc_schedule=False, device="cpu"
    )
    attack.init_hyperparam(torch.zeros(1, 1, 1, 1))
    return attack


def side_of_the_reference(norm: str, query: int, height: int, width: int) -> int:
    """As `attack_single_run` has it, which gives no other way to ask."""
    share: float = reference(norm).p_selection(query)
    side = round(math.sqrt(share * height * width))
    if norm == "L2":
        side = max(side, 3)
        side += 1 - side % 2
    return min(max(side, 1), height, width)


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (8, 8), (5, 5), (2, 2), (1, 1), (224, 224), (20, 31)])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_squares_shrink_as_the_references_do(norm: str, shape: tuple[int, int]) -> None:
    queries = sorted({0, 9999, *(count + more for count in square.HALVINGS for more in (0, 1))})
    per_step = 50
    zeros = torch.zeros(1, dtype=torch.int64)
    x = torch.zeros(1, 1, *shape)
    state = square.init(x, zeros, ThreatModel(norm, 0.1), Draws.start(0, zeros))
    for query in queries:
        at = replace(state, steps=zeros + query // per_step)
        sides = square._sides(at, per_step, P_INIT, smallest=1 if norm == "Linf" else 3)
        assert sides.shape == (1, per_step)
        assert int(sides[0, query % per_step]) == side_of_the_reference(norm, query, *shape), query


@pytest.mark.parametrize("side", range(1, 33))
def test_the_bumps_of_l2_are_the_references(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = reference("L2")
    torch.testing.assert_close(square._bump(side, 7), attack.eta_rectangles(side, 7), rtol=0, atol=1e-12)
    for drawn, expected in ((0.2, square._pattern(side)), (0.8, square._pattern(side).T)):
        monkeypatch.setattr(torch, "rand", lambda _, drawn=drawn: torch.tensor([drawn]))
        torch.testing.assert_close(attack.eta(side), expected, rtol=0, atol=1e-12)


Run = list[tuple[Tensor, Tensor]]
"""Query by query: the point that is asked about, and the best one before."""


class OurDraws:
    """Stands for `torch.rand` while the reference attacks one image: gives our draws in the order in which it draws.

    Places are given as the fractions of the reference's range that lead to the place of ours: so its range, which
    leaves out the last row and column, does not act. Images are square.
    """

    def __init__(self, threat: ThreatModel, x: Tensor, draws: Draws, queries: int, steps: int) -> None:
        self._left: deque[Tensor] = deque()
        channels, height, width = x.shape[1:]
        if threat.norm == "Linf":
            self._left.append(draws.uniform((channels, 1, width), stream=1))
        else:
            bump = height // 5
            tiles = math.ceil((height - height % 5 // 2) / bump)  # the reference's own last tile may be empty
            sign, swap = draws.uniform((channels, tiles, tiles), stream=1), draws.uniform((tiles, tiles), stream=2)
            for tile in product(range(height // bump), repeat=2):
                row, column = (min(place, tiles - 1) for place in tile)
                self._left += [swap[:, row, column], sign[:, :, row, column]]
        for step in range(steps):
            drawn = replace(draws, step=draws.step + step).uniform((queries, 5 + channels))[0]
            for number, draw in enumerate(drawn):
                side = side_of_the_reference(threat.norm, step * queries + number, height, width)
                room = torch.tensor([height, width, height, width]) - side
                places = ((draw[:4] * (room + 1)).floor() + 0.5) / room.clamp_min(1)
                self._left += [*places[:2], draw[5:]] if threat.norm == "Linf" else [*places, draw[4], draw[5:]]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        return self._left.popleft().reshape(tuple(shape))


def our_run(
    x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, queries: int, steps: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The points that ours asks about, query by query, and the best ones, step by step."""
    asked: list[Tensor] = []

    def watch(query: Query) -> None:
        asked.append(query.points)

    oracle = Oracle(network, threat, watch=watch)
    state = square.init(x, y, threat, draws)
    best = [state.x_adv]
    for _ in range(steps):
        state = square.step(oracle, state, queries_per_step=queries, p_init=P_INIT)
        best.append(state.x_adv)
    return asked, best


def reference_run(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, queries: int, steps: int) -> Run:
    """What the reference does with one image by the same draws, until it breaks it; at the end the best point alone."""
    run: Run = []

    def model(point: Tensor) -> Tensor:
        best = sys._getframe(2).f_locals["x_best"]  # of attack_single_run, two calls up
        run.append((point.clone(), best.clone()))
        return network(point)

    attack = reference(threat.norm, threat.epsilon, queries=queries * steps)
    attack.predict = model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", OurDraws(threat, x, draws, queries, steps))
        _, best = attack.attack_single_run(x, y)
    return [*run, (best, best)]


def images(count: int, side: int, channels: int = 3) -> tuple[Tensor, Tensor, Draws]:
    """x (count, channels, side, side), y as the network has it, and the images' draws."""
    x = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))
    return x, network(x).argmax(1), Draws.start(0, torch.arange(count))


def one(draws: Draws, image: int) -> Draws:
    """The draws of one image."""
    rows = slice(image, image + 1)
    return replace(draws, index=draws.index[rows], restart=draws.restart[rows], step=draws.step[rows])


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.norm)
@pytest.mark.parametrize(("side", "channels"), [(5, 3), (6, 3), (7, 3), (8, 3), (9, 3), (10, 3), (15, 1), (20, 1)])
def test_the_start_is_the_references_where_its_grid_of_bumps_fills_the_image(
    threat: ThreatModel, side: int, channels: int
) -> None:
    x, y, draws = images(4, side, channels)
    start = square.init(x, y, threat, draws).x_adv
    for image in range(len(x)):
        rows = slice(image, image + 1)
        run = reference_run(x[rows], y[rows], threat, one(draws, image), 0, 0)
        torch.testing.assert_close(start[rows], run[0][0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.norm)
def test_every_query_is_the_references_by_the_same_draws(threat: ThreatModel) -> None:
    x, y, draws = images(16, 10)
    asked, best = our_run(x, y, threat, draws, 40, 6)  # past three halvings; with 300 values, so nothing is remembered
    broken = accepted = 0
    for image in range(len(x)):
        rows = slice(image, image + 1)
        run = reference_run(x[rows], y[rows], threat, one(draws, image), 40, 6)
        for query, (point, _) in enumerate(run[:-1]):
            torch.testing.assert_close(asked[query][rows], point, rtol=0, atol=TOLERANCE)
        is_broken = bool(network(run[-1][0]).argmax(1) != y[rows])
        assert is_broken or len(run) - 1 == len(asked) == 241
        broken += is_broken
        for step in range(7):
            if step * 40 + 1 < len(run):
                torch.testing.assert_close(best[step][rows], run[step * 40 + 1][1], rtol=0, atol=TOLERANCE)
        accepted += sum(not torch.equal(run[query][1], run[query + 1][1]) for query in range(1, len(run) - 1))
    assert 0 < broken < len(x)
    assert accepted > 100


def test_the_best_points_are_the_references_where_a_small_image_is_asked_about_no_point_twice() -> None:
    threat = ThreatModel("Linf", 0.03)
    x, y, draws = images(8, 4)
    asked, best = our_run(x, y, threat, draws, 40, 5)
    held = 0
    for image in range(len(x)):
        rows = slice(image, image + 1)
        run = reference_run(x[rows], y[rows], threat, one(draws, image), 40, 5)
        for step in range(6):
            if step * 40 + 1 < len(run):
                torch.testing.assert_close(best[step][rows], run[step * 40 + 1][1], rtol=0, atol=TOLERANCE)
        held += len(run) == 202
    assert held
    assert sum(map(len, asked)) < 8 * 201, "which asks less"
