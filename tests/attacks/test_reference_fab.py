"""FAB beside the reference's, step by step: the points asked about, untargeted and targeted."""

from itertools import dropwhile

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor

from attacks import fab
from attacks.draws import Draws
from attacks.oracle import Oracle, Query
from attacks.threat_model import ThreatModel

pytestmark = pytest.mark.usefixtures("float64")

BOTH = pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.5)], ids=lambda t: t.norm)
SETTINGS = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9}

TOLERANCE = 1e-9
"""In float64 the walks from the image were found to differ by 3e-15 at most, those from a random point, of whose length
the reference's loop and ours differ in 1e-12, by 1e-12."""

Asked = list[tuple[Tensor, bool]]
"""The points asked about, and whether gradients were asked for."""

GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for shape in ((75, 24), (24, 6)))
FIRST *= torch.rand(FIRST.shape, generator=GENERATOR, dtype=torch.float64) ** torch.linspace(0, 40, 24).double()


def network(x: Tensor) -> Tensor:
    """Six classes, smooth; its hidden units see all pixels alike or few of them, so that the nearest boundary is that
    of another class under either norm."""
    return (0.5 * (x.flatten(1) - 0.5) @ FIRST).sin() @ SECOND


def images(*, low: float = 0.0) -> tuple[Tensor, Tensor]:
    """x, whose pixels are in [low, 1 - low], and y as the network has it."""
    x = low + (1 - 2 * low) * torch.rand(20, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return x, network(x).argmax(1)


def our_walk(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, steps: int, *, targeted: bool) -> Asked:
    """What our walk asks, from its first gradient on."""
    asked: Asked = []

    def watch(query: Query) -> None:
        asked.append((query.points, query.backwards > 0))

    oracle = Oracle(network, threat, watch=watch)
    state = fab.init(x, y, threat, draws, targeted=targeted)
    for _ in range(steps):
        state = fab.step(oracle, state, targeted=targeted, **SETTINGS)
        torch.testing.assert_close(state.x_adv, threat.project(asked[-1][0], x), rtol=0, atol=0)
    return list(dropwhile(lambda query: not query[1], asked))


def reference_walk(x: Tensor, y: Tensor, threat: ThreatModel, steps: int, rank: int | None, *, random: bool) -> Asked:
    """What the reference's walk asks, from its first gradient on; towards the class of a rank, or untargeted."""
    asked: Asked = []

    def model(point: Tensor) -> Tensor:
        asked.append((point.detach().clone(), point.requires_grad))
        return network(point)

    attack = FABAttack_PT(model, norm=threat.norm, n_iter=steps, eps=threat.epsilon, **SETTINGS)
    attack.target_class = None if rank is None else rank + 2
    attack.attack_single_run(x, y, use_rand_start=random, is_targeted=rank is not None)
    return list(dropwhile(lambda query: not query[1], asked))


def largest_difference(ours: Asked, theirs: Asked) -> float:
    """Between the points of two walks that ask the same."""
    assert [query[1] for query in ours] == [query[1] for query in theirs]
    return max(float((one - other).abs().max()) for (one, _), (other, _) in zip(ours, theirs, strict=True))


@BOTH
@pytest.mark.parametrize("rank", [None, 0, 1, 4])
def test_each_step_from_the_image_is_the_references(threat: ThreatModel, rank: int | None) -> None:
    x, y = images()
    draws = Draws.start(0, torch.arange(len(x)), torch.full((len(x),), rank or 0))
    ours = our_walk(x, y, threat, draws, 30, targeted=rank is not None)
    assert largest_difference(ours, reference_walk(x, y, threat, 30, rank, random=False)) <= TOLERANCE
    found = torch.stack([network(point).argmax(1) != y for point, gradient in ours if not gradient])
    assert found.any()
    assert not found.all()


@BOTH
def test_each_step_from_a_random_point_is_the_references_where_the_pixel_range_cuts_no_start(
    threat: ThreatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = images(low=0.4)
    draws = Draws.start(0, torch.arange(len(x)), torch.ones(len(x), dtype=torch.int64))
    monkeypatch.setattr(torch, "rand", lambda shape: draws.uniform(shape[1:]))
    monkeypatch.setattr(torch, "randn", lambda shape: draws.normal(shape[1:]))
    ours = our_walk(x, y, threat, draws, 30, targeted=False)
    assert largest_difference(ours, reference_walk(x, y, threat, 30, None, random=True)) <= TOLERANCE
    assert (ours[0][0] != x).flatten(1).all()
