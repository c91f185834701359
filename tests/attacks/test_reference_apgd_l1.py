"""APGD for L1 beside the reference's: every point asked about, through all three balls."""

import math

import pytest
import torch
from pyautoattack import autopgd_base
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor

from attacks import apgd_l1
from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel

pytestmark = pytest.mark.usefixtures("float64")

THREAT = ThreatModel("L1", 3.0)
LOSSES = {"ce": "cross-entropy", "dlr": "dlr", "dlr-targeted": "dlr-targeted"}
GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for shape in ((75, 24), (24, 6)))
BIAS = torch.tensor([0.0, 0.0, -6.0, -6.0, -7.0, -7.0], dtype=torch.float64)


def network(x: Tensor) -> Tensor:
    """Six classes, smooth, and curved enough that steps overshoot; two classes are far ahead of the others."""
    return (0.92 * (x.flatten(1) - 0.5) @ FIRST).sin() @ SECOND * 0.31 + BIAS


def images(count: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    return x, network(x).argmax(1), torch.arange(count) % 5


def ours(loss: str, moves: int) -> list[Tensor]:
    x, y, rank = images()
    asked: list[Tensor] = []

    def model(point: Tensor) -> Tensor:
        asked.append(point.detach().clone())
        return network(point)

    steps, oracle = moves + 2, Oracle(model, THREAT)
    state = apgd_l1.init(x, y, THREAT, Draws.start(0, torch.arange(len(x)), rank))
    if loss == "dlr-targeted":
        network_only = Oracle(network, THREAT)
        state = apgd_l1.step(network_only, state, loss=LOSSES[loss], iterations=steps)
        asked.append(apgd_l1.init(x, y, THREAT, Draws.start(0, torch.arange(len(x)), rank)).point)
    while int(state.steps[0]) < steps:
        state = apgd_l1.step(oracle, state, loss=LOSSES[loss], iterations=steps)
        assert THREAT.contains(state.x_adv, x).all()
    return [*asked, state.x_adv]


def theirs(loss: str, moves: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    x, y, rank = images()
    draws = Draws.start(0, torch.arange(len(x)), rank)
    asked: list[Tensor] = []

    def model(point: Tensor) -> Tensor:
        asked.append(point.detach().clone())
        return network(point)

    # Its x + delta - delta may differ from x by rounding, which it counts as a change.
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda delta: (delta.abs() > 1e-12).flatten(1).sum(1))
    monkeypatch.setattr(torch, "randn_like", lambda image: draws.normal(image.shape[1:]))
    settings = {"n_iter": moves, "norm": "L1", "eps": THREAT.epsilon, "use_largereps": True}
    if loss == "dlr-targeted":
        attack = APGDAttack_targeted(model, **settings)
        attack.y_target = network(x).sort(dim=1)[1][torch.arange(len(x)), -(rank + 2)]
    else:
        attack = APGDAttack(model, loss=loss, **settings)
    attack.init_hyperparam(x)
    first = math.ceil(0.3 * moves)
    radii = [factor * THREAT.epsilon for factor in (3.0, 2.0, 1.0)]
    attack.decr_eps_pgd(x, y, radii, [first, first, moves - 2 * first])
    return asked


@pytest.mark.parametrize("moves", [40, 100])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_point_is_the_references(loss: str, moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    our_points, their_points = ours(loss, moves), theirs(loss, moves, monkeypatch)
    assert len(our_points) == len(their_points) == moves + 3
    for number, (one, other) in enumerate(zip(our_points, their_points, strict=True)):
        assert (one - other).abs().max() <= 1e-8, f"point {number}"


def test_the_balls_have_the_references_moves_and_too_few_steps_still_end_in_the_last_one() -> None:
    assert apgd_l1.moves_in(102) == [30, 30, 40]
    assert apgd_l1.moves_in(12) == [3, 3, 4]
    assert sum(apgd_l1.moves_in(4)) == 2
