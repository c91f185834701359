"""Folding batch norm into convolutions: the same function, and everything as before afterwards."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from attacks.folding import folded, pairs_of
from model_zoo.architectures.registry import build


@pytest.fixture
def network() -> nn.Module:
    """A ResNet whose batch norms are no identities, in eval mode."""
    torch.manual_seed(0)
    model = build("resnet-18-w16").double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def passed(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and an image gradient."""
    x = x.clone().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]


def test_folded_layers_are_the_same_function_with_the_same_image_gradients(network: nn.Module) -> None:
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    logits, gradient = passed(network, x)
    pairs = pairs_of(network)
    assert len(pairs) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with folded(pairs):
        assert not any(isinstance(node.running_mean, Tensor) and node(x) is not x for _, node in pairs)
        torch.testing.assert_close(passed(network, x), (logits, gradient), rtol=1e-9, atol=1e-9)


def test_afterwards_all_is_as_it_was_whatever_happens_inside(network: nn.Module) -> None:
    before, parameters = copy.deepcopy(network.state_dict()), list(network.parameters())
    names, x = [name for name, _ in network.named_parameters()], torch.rand(2, 3, 32, 32, dtype=torch.float64)
    logits = network(x)
    with pytest.raises(RuntimeError), folded(pairs_of(network)):
        network(x[:, :1])  # images of one channel
    assert all(now is then for now, then in zip(network.parameters(), parameters, strict=True))
    assert [name for name, _ in network.named_parameters()] == names
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(x), logits)
    network.train()
    assert not torch.equal(network(x), logits)


class Shared(nn.Module):
    """Its convolution is read twice, its second one is under weight norm, its last batch norm has no statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.parametrised, self.second = weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        self.third, self.stateless = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.plain, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        once = self.read_twice(x)
        x = self.second(self.parametrised(once + self.norm(once)))
        out: Tensor = self.last(self.plain(self.stateless(self.third(x))))
        return out


def test_layers_that_are_not_one_function_are_left_alone() -> None:
    model = Shared().eval()
    assert pairs_of(model) == [(model.plain, model.last)]
    assert pairs_of(model.train()) == []


class Branches(nn.Module):
    """A forward pass that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_traced_is_not_folded() -> None:
    assert pairs_of(Branches()) == []
