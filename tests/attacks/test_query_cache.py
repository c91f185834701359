"""What Square remembers: no answer is asked for twice, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from attacks import query_cache
from attacks.draws import Draws
from attacks.loop import run_steps
from attacks.oracle import Classifier, Oracle, Query
from attacks.query_cache import QueryCache, key_of
from attacks.registry import ATTACKS
from attacks.spec import Recurrence
from attacks.threat_model import ThreatModel

IMAGES, STEPS = 6, 12


def bumpy(x: Tensor) -> Tensor:
    """Logits with many local optima, image by image the same in any batch."""
    generator = torch.Generator().manual_seed(3)
    weights = 9 * torch.randn(4, x[0].numel(), generator=generator, dtype=torch.float64)
    return torch.sin(x.double().flatten(1)[:, None] * weights).sum(-1).float()


def noisy(x: Tensor) -> Tensor:
    """The same, and no answer twice."""
    return bumpy(x) + 0.1 * torch.rand(len(x), 4)


def search(x: Tensor, norm: str, classifier: Classifier = bumpy) -> tuple[Tensor, list[list[bytes]]]:
    """Where Square ends, and the points that it asked about, image by image."""
    asked: list[list[bytes]] = [[] for _ in x]

    def hear(query: Query) -> None:
        rows = range(len(x)) if query.rows is None else query.rows.tolist()
        for row, point in zip(rows, query.points, strict=True):
            asked[row].append(point.numpy().tobytes())

    square = ATTACKS["square"]
    assert isinstance(square.method, Recurrence)
    oracle = Oracle(classifier, ThreatModel(norm, 0.2), watch=hear)
    draws = Draws.start(0, torch.arange(len(x)))
    settings = {"init_params": square.init_params, "step_params": square.step_params}
    return run_steps(square.method, oracle, x, bumpy(x).argmax(1), draws, steps=STEPS, **settings), asked


def images(size: int, channels: int = 1) -> Tensor:
    return torch.rand(IMAGES, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_hardly_a_point_is_asked_twice_and_the_search_ends_where_it_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remembered, asked = search(images(6), "Linf")
    monkeypatch.setattr(query_cache, "LARGEST", 0)
    forgetful, asked_forgetful = search(images(6), "Linf")
    assert torch.equal(remembered, forgetful)
    for once, often in zip(asked, asked_forgetful, strict=True):
        assert len(often) == 1 + 50 * STEPS
        assert set(once) == set(often)
        assert len(once) < min(1.05 * len(set(once)), 0.5 * len(often))  # a few were forgotten


@pytest.mark.parametrize(("size", "norm"), [(17, "Linf"), (6, "L2")])
def test_every_point_is_asked_about_where_points_hardly_repeat(size: int, norm: str) -> None:
    _, asked = search(images(size), norm)
    assert {len(points) for points in asked} == {1 + 50 * STEPS}


def test_nothing_is_remembered_of_a_classifier_whose_answers_are_random() -> None:
    _, asked = search(images(6), "Linf", noisy)
    assert {len(points) for points in asked} == {2 + 50 * STEPS}


def test_nothing_is_known_before_anything_was_asked() -> None:
    black = torch.zeros(2, 1, 8, 8)
    assert not QueryCache.empty(black, remembers=True).knows(torch.arange(2), key_of(black)[:, None]).any()


def test_a_key_is_of_the_point_and_not_of_its_place() -> None:
    x = images(8, channels=3)
    keys = key_of(x)
    assert torch.equal(key_of(x[3:4]), keys[3:4])
    assert torch.equal(key_of(x.flip(0).view(2, 3, 3, 8, 8)), keys.flip(0).view(2, 3))
    assert int(key_of(torch.zeros(1, 1, 2, 2))) == int(key_of(-torch.zeros(1, 1, 2, 2)))
    for pixel in range(x[0].numel()):
        moved = x.clone()
        moved.view(IMAGES, -1)[:, pixel] = torch.nextafter(moved.view(IMAGES, -1)[:, pixel], torch.tensor(2.0))
        assert not (key_of(moved) == keys).any()


def test_the_later_of_two_points_of_one_slot_is_remembered() -> None:
    noted = QueryCache.empty(images(8), remembers=True)
    image, first, second = torch.tensor([2]), torch.tensor([12345]), torch.tensor([54321])
    noted.note(image, first)
    assert bool(noted.knows(image, first[:, None]))
    assert not noted.knows(torch.tensor([1]), first[:, None])
    noted.note(image, second)
    assert bool(noted.knows(image, second[:, None]))
    assert not noted.knows(image, first[:, None])
