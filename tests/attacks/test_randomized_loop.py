"""What an attack on a randomised model proposes: the best point by its own loss, and the last."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.judge import BatchJudge
from attacks.oracle import Oracle
from attacks.randomized_loop import Proposals, run_unjudged
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, Recurrence
from attacks.threat_model import ThreatModel

THREAT = ThreatModel("Linf", 0.25)
WALK = (0.1, 0.2, 0.3, 0.15)
"""How far the attack below goes from the image at each step; the third point is outside the threat model."""


@dataclass(frozen=True)
class State:
    """Images, labels, where the walk is, and how many steps it took."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> State:  # noqa: ARG001
    return State(x, y, x, draws.step)


def step(oracle: Oracle, state: State, *, asks: Callable[[Oracle, Tensor, Tensor], object]) -> State:
    """Ask about the next point of `WALK`."""
    point = state.x + torch.tensor(WALK)[state.steps].view(-1, 1, 1, 1)
    asks(oracle, point, state.y)
    return replace(state, x_adv=THREAT.project(point, state.x), steps=state.steps + 1)


def classifier(x: Tensor) -> Tensor:
    """Two classes; the brighter the image, the likelier the second."""
    brightness = x.flatten(1).mean(1)
    return torch.stack([1 - brightness, brightness], 1)


def logits(oracle: Oracle, point: Tensor, _: Tensor) -> None:
    oracle.logits(point)


def loss(oracle: Oracle, point: Tensor, y: Tensor) -> None:
    oracle.loss_and_gradient(point, y, "cross-entropy")


def loss_against(oracle: Oracle, point: Tensor, y: Tensor) -> None:
    """Climbs the loss of the other class, after it asked about one point too bright for it to be the best."""
    oracle.logits(point.clone().fill_(0.45)[:1], rows=torch.zeros(1, dtype=torch.int64))
    oracle.loss_and_gradient(point, 1 - y, "cross-entropy")
    oracle.logits(point.clone().fill_(0.45))


def proposed(asks: Callable[[Oracle, Tensor, Tensor], None], eot: int = 1) -> Proposals:
    attack = AttackSpec("walk", algorithm="walk", method=Recurrence(init, step), params={"asks": asks}, steps=4)
    x, y = torch.full((3, 1, 2, 2), 0.25), torch.zeros(3, dtype=torch.int64)
    return run_unjudged(attack, classifier, x, y, torch.arange(3), THREAT, restart=0, seed=0, eot=eot)


@pytest.mark.parametrize("asks", [logits, loss])
def test_the_best_point_is_the_one_of_the_largest_loss_inside_the_threat_model(
    asks: Callable[[Oracle, Tensor, Tensor], None],
) -> None:
    found = proposed(asks)
    torch.testing.assert_close(found.best, torch.full((3, 1, 2, 2), 0.45))
    torch.testing.assert_close(found.last, torch.full((3, 1, 2, 2), 0.4))


def test_where_an_attack_has_a_loss_of_its_own_that_decides_and_not_the_logits() -> None:
    torch.testing.assert_close(proposed(loss_against).best, torch.full((3, 1, 2, 2), 0.35))


def test_passes_are_counted_image_by_image() -> None:
    found = proposed(loss_against, eot=5)
    assert found.forwards.tolist() == [60, 40, 40]
    assert found.backwards.tolist() == [20, 20, 20]


@pytest.mark.parametrize("name", ["pgd-20", "mi-fgsm", "apgd-ce", "apgd-t", "fab", "fab-t", "square"])
def test_every_recurrence_proposes_inside_the_threat_model_and_repeats(name: str) -> None:
    spec = ATTACKS[name].with_settings(steps=3)
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))

    def linear(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight.T

    images = x, linear(x).argmax(1), torch.arange(4), THREAT
    first, again = (run_unjudged(spec, linear, *images, restart=1, seed=0, eot=2) for _ in range(2))
    for points in (first.best, first.last):
        assert THREAT.contains(points, x).all()
    assert torch.equal(first.best, again.best)
    assert (first.forwards > 0).all()


def test_a_proposal_outside_the_threat_model_is_refused_of_a_randomised_target_too() -> None:
    x, y = torch.full((2, 1, 2, 2), 0.3), torch.zeros(2, dtype=torch.int64)
    judge = BatchJudge(classifier, x, y, THREAT, draws=3, key=(0, 0), batch_size=2)
    assert judge.wrong_classes(x[:1] + 0.24, torch.tensor([1])).tolist() == [1]
    with pytest.raises(ValueError, match="outside the threat model"):
        judge.wrong_classes(x[:1] + 0.3, torch.tensor([1]))
