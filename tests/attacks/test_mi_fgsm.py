from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks import mi_fgsm
from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel

LINF = ThreatModel("Linf", 8 / 255)
SETTINGS: dict[str, Any] = {"rel_step_size": 0.3, "momentum": 0.9}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    ).eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = (1.4 * torch.rand(8, 3, 9, 9, generator=generator) - 0.2).clamp(0, 1)
    return x, torch.randint(10, (8,), generator=generator)


def trajectory(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, steps: int = 10) -> list[mi_fgsm.State]:
    oracle = Oracle(model, threat)
    states = [mi_fgsm.init(x, y, threat, Draws.start(0, torch.arange(len(x))))]
    for _ in range(steps):
        states.append(mi_fgsm.step(oracle, states[-1], **SETTINGS))
    return states


def reference(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, steps: int = 10) -> list[Tensor]:
    """Dong et al., arXiv:1710.06081, Equations 6 to 8, one image at a time and in float64."""
    model = model.double()
    iterates = []
    for image, label in zip(x.double(), y, strict=True):
        clean, momentum, point = image.numpy(), np.zeros(image.shape), image.numpy()
        iterates.append([point])
        for _ in range(steps):
            leaf = torch.from_numpy(point)[None].requires_grad_()
            F.cross_entropy(model(leaf), label[None]).backward()
            assert leaf.grad is not None
            gradient = leaf.grad[0].numpy()
            momentum = SETTINGS["momentum"] * momentum + gradient / np.abs(gradient).sum()
            length = SETTINGS["rel_step_size"] * threat.epsilon
            if threat.norm == "Linf":
                point = np.clip(point + length * np.sign(momentum), clean - threat.epsilon, clean + threat.epsilon)
            else:
                delta = point + length * momentum / np.sqrt((momentum**2).sum()) - clean
                point = clean + delta * min(1.0, threat.epsilon / np.sqrt((delta**2).sum()))
            point = np.clip(point, 0, 1)
            iterates[-1].append(point)
    model.float()
    return [torch.from_numpy(np.stack(images)).float() for images in zip(*iterates, strict=True)]


@pytest.mark.parametrize("threat", [LINF, ThreatModel("L2", 0.5)], ids=["Linf", "L2"])
def test_it_follows_the_papers_equations_iterate_for_iterate(threat: ThreatModel) -> None:
    model, (x, y) = network(), batch()
    states = trajectory(model, x, y, threat)
    for state, expected in zip(states, reference(model, x, y, threat), strict=True):
        torch.testing.assert_close(state.x_adv, expected, rtol=0, atol=1e-5)


def test_it_equals_torchattacks_iterate_for_iterate() -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="an independent MI-FGSM, not among the dependencies")
    model, (x, y) = network(), batch()
    for steps, state in enumerate(trajectory(model, x, y, LINF)[1:], start=1):
        theirs = torchattacks.MIFGSM(
            model, eps=LINF.epsilon, alpha=SETTINGS["rel_step_size"] * LINF.epsilon, steps=steps, decay=0.9
        )
        torch.testing.assert_close(state.x_adv, theirs(x, y), rtol=0, atol=1e-6)


def test_momentum_makes_a_difference_and_is_kept_per_image() -> None:
    model, (x, y) = network(), batch()
    oracle = Oracle(model, LINF)
    states = trajectory(model, x, y, LINF, steps=4)
    forgetful = mi_fgsm.step(oracle, states[3], rel_step_size=0.3, momentum=0.0)
    assert not torch.equal(forgetful.x_adv, states[4].x_adv)
    alone = trajectory(model, x[2:3], y[2:3], LINF, steps=4)[4]
    torch.testing.assert_close(alone.velocity, states[4].velocity[2:3])


def test_the_first_step_is_that_of_fgsm() -> None:
    model, (x, y) = network(), batch()
    gradient = Oracle(model, LINF).loss_and_gradient(x, y, "cross-entropy")[1]
    expected = (x + 0.3 * LINF.epsilon * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(trajectory(model, x, y, LINF, steps=1)[1].x_adv, expected)


def test_a_zero_gradient_moves_nothing() -> None:
    def constant(points: Tensor) -> Tensor:
        return 0.0 * points.flatten(1)[:, :3]

    x = torch.full((2, 1, 2, 2), 0.5)
    state = mi_fgsm.init(x, torch.tensor([0, 1]), LINF, Draws.start(0, torch.arange(2)))
    after = mi_fgsm.step(Oracle(constant, LINF), state, **SETTINGS)
    assert torch.equal(after.x_adv, x)
    assert not after.velocity.any()


def test_a_step_leaves_the_state_before_it_alone() -> None:
    model, (x, y) = network(), batch()
    states = trajectory(model, x, y, LINF, steps=2)
    kept = states[1].x_adv.clone(), states[1].velocity.clone()
    mi_fgsm.step(Oracle(model, LINF), states[1], **SETTINGS)
    assert torch.equal(states[1].x_adv, kept[0])
    assert torch.equal(states[1].velocity, kept[1])
    assert states[1].steps.tolist() == [1] * 8
