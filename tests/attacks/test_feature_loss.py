"""The distance of features from the clean image's, as a loss: which layer, what it costs, and what climbs it."""

import pytest
import torch
from torch import Tensor, nn

from attacks import attack
from attacks.errors import InputError
from attacks.features import features_and_logits
from attacks.oracle import Oracle, Query
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from model_zoo.architectures.digits_cnn import DigitsCNN

THREAT = ThreatModel("Linf", 0.1)


@pytest.fixture
def network() -> DigitsCNN:
    torch.manual_seed(0)
    return DigitsCNN().eval().requires_grad_(False)


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", ["", "act2", "conv1"])
def test_the_loss_is_the_squared_distance_of_that_layer_and_its_gradient(network: DigitsCNN, layer: str) -> None:
    x, clean = images() * 0.9, images()
    seen: list[Query] = []
    oracle = Oracle(network, THREAT, watch=seen.append)
    loss = f"features:{layer}" if layer else "features"
    value, gradient = oracle.loss_and_gradient(x, torch.zeros(4, dtype=torch.int64), loss, clean=clean)

    def features(x: Tensor) -> Tensor:
        first = network.conv1(x)
        second = network.act2(network.conv2(network.act1(first)))
        third = network.act3(network.fc1(second.flatten(1)))
        chosen: Tensor = {"": third, "act2": second, "conv1": first}[layer].flatten(1)
        return chosen

    point = x.clone().requires_grad_()
    expected = (features(point) - features(clean)).square().sum(1)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), point)[0])
    torch.testing.assert_close(seen[0].logits, network(x))
    assert (seen[0].forwards, seen[0].backwards) == (2, 1)
    assert (oracle.forwards, oracle.backwards) == (8, 4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_an_attack_that_climbs_it_goes_farther_than_one_that_does_not(network: DigitsCNN) -> None:
    x = images()
    y = network(x).argmax(1)
    far = {}
    for loss in (None, "features:act1"):
        x_adv = attack(network, x, y, "pgd-20", epsilon=0.01, loss=loss).x_adv
        here, there = (features_and_logits(network, points, "act1")[0] for points in (x_adv, x))
        far[loss] = (here - there).square().sum(1).mean().item()
    assert far["features:act1"] > far[None]
    assert ATTACKS["apgd-ce"].with_loss("features:act1").name == "apgd-ce-features:act1"
    assert not attack(network, x, y, "apgd-ce", epsilon=0.3, loss="features").robust.all()


def test_what_cannot_climb_it_and_which_layers_there_are(network: DigitsCNN) -> None:
    x = images()
    y = network(x).argmax(1)
    with pytest.raises(InputError, match=r"unknown layer 'act9'; known: conv1, conv2, fc1"):
        attack(network, x, y, "pgd-20", epsilon=0.1, loss="features:act9")
    for name in ("fgsm", "mi-fgsm", "apgd-t", "square"):  # from the clean image there is no way up; no loss; targets
        assert not ATTACKS[name].can_climb("features")
    with pytest.raises(InputError, match="loss must be one of"):
        ATTACKS["pgd-20"].with_settings(loss="features:")


def test_several_points_of_an_image_are_read_as_their_mean() -> None:
    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            around = torch.cat([x.flatten(1), x.flatten(1) + 1])
            logits: Tensor = self.last(around).view(2, len(x), 2).mean(0)
            return logits

    x = torch.rand(3, 1, 2, 2)
    torch.testing.assert_close(features_and_logits(Averaged(), x)[0], x.flatten(1) + 0.5)


class Detector(nn.Module):
    """Classes of a network, and the logit of "rejected" by a linear layer that no gradient passes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.reject = network, nn.Linear(64, 1).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.network(x), self.reject(x.detach().flatten(1))], 1)


def test_of_a_detector_the_features_are_what_its_classes_are_read_from(network: DigitsCNN) -> None:
    x = images()
    torch.testing.assert_close(features_and_logits(Detector(network), x)[0], features_and_logits(network, x)[0])


def test_features_without_a_gradient_are_refused_where_one_is_asked_for(network: DigitsCNN) -> None:
    x = images().requires_grad_()
    with pytest.raises(InputError, match="expected a layer that passes gradients to the images"):
        features_and_logits(Detector(network), x, "reject")
    with torch.no_grad():
        assert features_and_logits(Detector(network), images(), "reject")[0].shape == (4, 1)
