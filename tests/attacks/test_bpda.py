"""BPDA: the value is that of the part, to the bit; the gradient is that of its stand-in."""

import pytest
import torch
from torch import Tensor, nn

from attacks import attack
from attacks.bpda import Bpda, identity, zero
from attacks.errors import InputError


def rounded(x: Tensor) -> Tensor:
    return (15 * x).round() / 15


def gradient(module: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    point = x.clone().requires_grad_()
    return torch.autograd.grad((module(point) * weights).sum(), point)[0]


@pytest.fixture
def x() -> Tensor:
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backward", [identity, zero, torch.sin, lambda x: 1e6 * x])
def test_the_value_is_that_of_the_part_to_the_bit(x: Tensor, backward: object) -> None:
    module = Bpda(rounded, backward)  # type: ignore[arg-type]
    assert torch.equal(module(x.clone().requires_grad_()), rounded(x))
    with torch.no_grad():
        assert torch.equal(module(x), rounded(x))


def test_the_gradient_is_that_of_the_stand_in(x: Tensor) -> None:
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert not gradient(Bpda(rounded, torch.round), x, weights).any()
    assert not gradient(Bpda(torch.sin, zero), x, weights).any()
    assert torch.equal(gradient(Bpda(rounded), x, weights), weights)
    torch.testing.assert_close(gradient(Bpda(rounded, torch.sin), x, weights), weights * x.cos())


def test_parameters_of_both_parts_are_in_the_state_dict() -> None:
    module = Bpda(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    assert list(module.state_dict()) == ["forward_pass.weight", "forward_pass.bias", "backward_pass.weight"]


def test_a_part_that_takes_gradients_itself_is_run_and_leaves_no_graph(x: Tensor) -> None:
    def climbed(x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad((point**2).sum(), point)
        return x + slope

    torch.testing.assert_close(Bpda(climbed)(x), 3 * x)
    assert torch.equal(gradient(Bpda(climbed), x, torch.ones_like(x)), torch.ones_like(x))


def test_an_attack_on_the_surrogate_breaks_what_one_on_the_model_does_not(x: Tensor) -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    masked, surrogate = (nn.Sequential(Bpda(rounded, part), head).eval() for part in (zero, identity))
    y = masked(x).argmax(1)
    on_itself = attack(masked, x, y, "pgd-20", epsilon=0.5)
    adaptive = attack(masked, x, y, "pgd-20", epsilon=0.5, source=surrogate)
    assert on_itself.robust.sum() >= 3
    assert not adaptive.robust.any()


def test_a_stand_in_of_another_shape_is_a_mistake_that_is_named(x: Tensor) -> None:
    fewer = Bpda(lambda x: x.mean(1, keepdim=True)[:, :, :1])
    with pytest.raises(InputError, match=r"expected a backward_pass of the shape of forward_pass, .*, got .*"):
        fewer(x.clone().requires_grad_())
