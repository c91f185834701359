import pytest
import torch
from torch import Tensor, nn

from benchmark.search_model import search_model
from model_zoo.architectures.registry import build


def trained_looking(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose batch norms do something, and some images."""
    generator = torch.Generator().manual_seed(0)
    model = build(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
            module.bias.data = torch.randn(module.bias.shape, generator=generator)
    return model.eval().requires_grad_(False), torch.rand(2, 3, 32, 32, generator=generator)


def logits(model: nn.Module, x: Tensor, precision: torch.dtype) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        return model(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["resnet-18", "preact-resnet-18"])
def test_the_copy_is_the_model_but_for_rounding(name: str) -> None:
    model, x = trained_looking(name)
    searched = search_model(model, x, torch.bfloat16)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) for network in (model, searched)]
    assert norms[1] < norms[0]
    torch.testing.assert_close(searched(x), model(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(logits(searched, x, torch.bfloat16), model(x), rtol=0.1, atol=0.1)


def test_its_ends_stay_in_float32() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval().requires_grad_(False)
    x = torch.rand(5, 1, 2, 2)
    searched = search_model(model, x, torch.bfloat16)
    assert torch.equal(logits(searched, x, torch.bfloat16), model(x))  # there is nothing but ends
    assert not torch.equal(logits(model, x, torch.bfloat16).float(), model(x))


def test_float32_needs_no_copy() -> None:
    model = nn.Linear(2, 2)
    assert search_model(model, torch.rand(1, 2), torch.float32) is model


class Branching(nn.Module):
    """Cannot be traced, and draws noise."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x + torch.rand_like(x)
        output: Tensor = self.norm(self.convolution(x)).flatten(1)
        return output


def test_what_cannot_be_traced_is_searched_unfolded() -> None:
    model = Branching().eval().requires_grad_(False)
    searched = search_model(model, torch.ones(1, 1, 3, 3), torch.bfloat16)
    assert any(isinstance(module, nn.BatchNorm2d) for module in searched.modules())


class Reader(nn.Module):
    """Reads the weights of its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.first(x.flatten(1))) / self.last.weight.norm()
        return output


class Double(nn.Module):
    """Computes in float64 whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear(x.flatten(1).double())
        return output


@pytest.mark.parametrize("kind", [Reader, Double])
def test_what_a_model_expects_of_its_layers_is_still_there(kind: type[nn.Module]) -> None:
    model, x = kind().eval().requires_grad_(False), torch.rand(2, 1, 2, 2)
    searched = search_model(model, x, torch.bfloat16)
    torch.testing.assert_close(logits(searched, x, torch.bfloat16).float(), model(x).float(), rtol=0.05, atol=0.05)


def test_gradients_agree_with_those_of_the_model() -> None:
    model, x = trained_looking("resnet-18")
    both = []
    for network, precision in ((model, torch.float32), (search_model(model, x, torch.bfloat16), torch.bfloat16)):
        image = x.clone().requires_grad_()
        both.append(torch.autograd.grad(logits(network, image, precision).float().logsumexp(1).sum(), image)[0])
    similarity = torch.cosine_similarity(both[0].flatten(1), both[1].flatten(1))
    assert 0.95 < similarity.min() < 1 - 1e-7  # the layers between the ends do round


class Copyless(nn.Linear):
    def __deepcopy__(self, memo: object) -> "Copyless":
        raise TypeError("no copies")


def test_what_cannot_be_copied_is_searched_itself() -> None:
    model = Copyless(2, 2)
    assert search_model(model, torch.rand(1, 2), torch.bfloat16) is model
