import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from attacks.search_model import InFloat32, precision_of, search_model
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
    model = Copyless(2, 2).requires_grad_(False)
    assert searches_the_model_itself(model, torch.rand(1, 2))


def searches_the_model_itself(model: nn.Module, x: Tensor) -> bool:
    """Whether the search takes the model, and its gradients and logits in float32."""
    searched = search_model(model, x, torch.bfloat16)
    return (
        isinstance(searched, InFloat32)
        and searched.model is model
        and precision_of(searched, torch.bfloat16) == torch.float32
        and torch.equal(logits(searched, x, torch.bfloat16), model(x))
    )


def network(first: nn.Module | None = None) -> nn.Sequential:
    """A convolution with batch norm behind a first layer."""
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
    head = (nn.Flatten(), nn.Linear(64, 3))
    return nn.Sequential(first or nn.Identity(), *body, *head).eval().requires_grad_(False)


IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))


class Rounding(torch.autograd.Function):
    """Sixteen levels forward, the identity backward."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        return torch.round(15 * x) / 15

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient


class StraightThrough(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = Rounding.apply(x)
        return output


class Frozen(nn.Module):
    """Half of its input is none of the gradient's business."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = self.scale(x)
        output: Tensor = x + shift
        return output


def image_gradient(model: nn.Module, x: Tensor, precision: torch.dtype) -> Tensor:
    image = x.clone().requires_grad_()
    gradient: Tensor = torch.autograd.grad(logits(model, image, precision).float()[:, 0].sum(), image)[0]
    return gradient


@pytest.mark.parametrize("first", [StraightThrough, Frozen])
def test_the_search_has_the_gradients_of_a_model_that_tracing_would_change(first: type[nn.Module]) -> None:
    model = network(first())
    searched = search_model(model, IMAGES, torch.bfloat16)
    found, expected = image_gradient(searched, IMAGES, torch.bfloat16), image_gradient(model, IMAGES, torch.float32)
    assert expected.abs().max() > 0
    assert (found - expected).norm() < 0.1 * expected.norm()


class Fine(nn.Module):
    """Tells levels apart that bfloat16 does not."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() < 0:  # which tracing cannot follow
            return x
        return torch.sin(2000 * (x.bfloat16().float() if torch.is_autocast_enabled("cpu") else x))


def test_a_model_that_is_another_one_in_bfloat16_is_searched_in_float32() -> None:
    assert searches_the_model_itself(network(Fine()), IMAGES)


def test_a_model_without_gradients_is_searched_itself() -> None:
    class BlackBox(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.detach().flatten(1).numpy()[:, :3])

    assert searches_the_model_itself(BlackBox(), IMAGES)


def test_a_model_that_fails_under_autocast_is_searched_itself() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_autocast_enabled("cpu") or x.sum() < 0:
                raise RuntimeError("expected scalar type Float")
            return x

    assert searches_the_model_itself(network(Picky()), IMAGES)


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_batch_norm_that_is_not_only_an_affine_map_is_not_folded() -> None:
    assert batch_norms(search_model(network(), IMAGES, torch.bfloat16)) == 0

    training = network()
    training[2].train()
    assert batch_norms(search_model(training, IMAGES, torch.bfloat16)) > 0


def test_what_hangs_on_a_module_is_still_called_in_the_copy() -> None:
    model, calls = network(), list[int]()
    model[2].register_forward_hook(lambda *told: calls.append(len(told[2])))
    searched = search_model(model, IMAGES, torch.bfloat16)
    calls.clear()
    searched(IMAGES)
    assert calls == [len(IMAGES)]


def test_a_convolution_with_a_parametrised_weight_keeps_it() -> None:
    model = network()
    spectral_norm(model[4])
    model = model.eval().requires_grad_(False)
    searched = search_model(model, IMAGES, torch.bfloat16)
    assert batch_norms(searched) == 1  # the other one is folded
    torch.testing.assert_close(searched(IMAGES), model(IMAGES), rtol=1e-3, atol=1e-3)


def test_one_steep_image_does_not_hide_that_others_lost_their_gradient() -> None:
    class ForOne(nn.Module):
        """Straight through for dark images alone; the bright one has a gradient two hundred times as long."""

        def forward(self, x: Tensor) -> Tensor:
            bright = (x.flatten(1).mean(1) > 0.9).view(-1, 1, 1, 1)
            return torch.where(bright, x + 199 * (x - x.detach()), StraightThrough()(x))

    images = torch.cat([torch.ones_like(IMAGES[:1]), IMAGES[1:]])
    model = network(ForOne())
    searched = search_model(model, images, torch.bfloat16)
    found, expected = image_gradient(searched, images, torch.bfloat16), image_gradient(model, images, torch.float32)
    share = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert share.max() < 0.5


def test_logits_alone_tell_a_copy_from_the_model() -> None:
    class Shifted(nn.Module):
        """Its logits under autocast are others by a constant, whose gradient is zero."""

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() < 0:  # which tracing cannot follow
                return x
            return x + 3 * float(torch.is_autocast_enabled("cpu"))

    assert searches_the_model_itself(nn.Sequential(network(nn.Identity()), Shifted()).eval(), IMAGES)
