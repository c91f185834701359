"""A normalisation that lacks, or is there twice, is noticed; images as a model knows them raise no flag."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from strangers import Stranger, train
from torch import Tensor, nn

from attacks.models.normalisation import Normalisation
from attacks.models.user_model import Quirks, UserModel
from benchmark.data.datasets import load
from benchmark.data.split import Split, with_wider
from benchmark.evaluation.first_batch_norm import misfit, reached_first
from benchmark.evaluation.normalisation_flag import wanted_normalisation
from model_zoo.load import load_model
from model_zoo.registry import SHIPPED, model_spec

TRAINED = {"mlp": ("digits", Normalisation((0.3053,), (0.3769,))), "resnet": ("half", Normalisation((0.5,), (0.5,)))}
NAMED = {"mlp": ("own", "mnist"), "resnet": ("0.5",)}
"""What may be said of each: the images' own mean and deviation are near those of MNIST."""


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits", "test", data_dir=Path())


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: pytest.FixtureRequest) -> tuple[str, nn.Module, nn.Module]:
    """A kind of network, one that was trained on normalised images, and the layer that normalises them."""
    name, normalisation = TRAINED[request.param]
    stranger = Stranger("digits", request.param, "natural", name)
    split = load("digits", "train", data_dir=Path())
    return request.param, train(stranger, split, epochs=8), normalisation.layer()


def flag(model: nn.Module, split: Split) -> str:
    return wanted_normalisation(model, split, batch_size=100, device=torch.device("cpu"))


def test_a_normalisation_that_lacks_is_named_and_one_that_is_there_is_not(
    trained: tuple[str, nn.Module, nn.Module], digits: Split
) -> None:
    kind, network, layer = trained
    assert flag(network, digits) in NAMED[kind]
    assert flag(nn.Sequential(layer, network), digits) == ""
    if kind == "resnet":  # without batch norm, a doubled one may go unnoticed
        assert flag(nn.Sequential(layer, layer, network), digits) == "twice"


def test_pixels_up_to_255_are_named(digits: Split) -> None:
    network = load_model(model_spec("natural", "digits", SHIPPED), SHIPPED, classes=10)
    assert flag(nn.Sequential(Normalisation((0.0,), (255.0,)).layer(), network), digits) == "255"


@pytest.mark.parametrize("name", ["natural", "madry", "trades-b6", "rst", "gairat", "gair-fat", "ibp"])
def test_shipped_models_want_their_images_as_they_are(name: str, digits: Split) -> None:
    assert flag(load_model(model_spec(name, "digits", SHIPPED), SHIPPED, classes=10), digits) == ""


def test_a_model_that_refuses_other_images_raises_no_flag(digits: Split) -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.min() < 0 or x.max() > 1 or x.max() < 0.9:
                raise ValueError("no image")
            return x.flatten(1)[:, 20:30]

    assert flag(Strict(), digits) == ""


def test_misfit_is_that_of_the_first_batch_norm_and_leaves_no_hook() -> None:
    norm = nn.BatchNorm2d(2).eval()
    x = torch.randn(4000, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(norm, nn.BatchNorm2d(2).eval())
    assert misfit_of(model, x) == pytest.approx(0, abs=0.05)
    assert misfit_of(model, 2 * x + 1) == pytest.approx(1 + 2 * math.log(2), abs=0.1)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert reached_first(nn.Sequential(nn.Linear(1, 1)), [lambda: None]) is None


def test_a_pass_that_stops_at_the_first_batch_norm_says_the_same() -> None:
    class Counted(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

    norm, behind = nn.BatchNorm2d(2).eval(), Counted()
    x = torch.randn(40, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    model = UserModel(nn.Sequential(norm, behind), Quirks())
    passes = [partial(model, part) for part in x.split(10)]
    whole = reached_first(model, passes)
    assert behind.calls == len(passes)
    stopped = reached_first(model, passes, stops=True)
    assert behind.calls == len(passes)
    assert whole is not None
    assert stopped is not None
    assert whole.is_reached_once
    assert torch.equal(whole.sums, stopped.sums)
    twice = reached_first(nn.Sequential(norm, norm), [partial(nn.Sequential(norm, norm), x)])
    assert twice is not None
    assert not twice.is_reached_once


def misfit_of(model: nn.Module, *batches: Tensor) -> float | None:
    reached = reached_first(model, [partial(model, x) for x in batches])
    return None if reached is None else misfit(reached)


def test_misfit_is_over_all_batches_and_few_images_say_nothing(digits: Split) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1)).eval()
    x = torch.cat([torch.zeros(50, 1, 1, 1), torch.full((50, 1, 1, 1), 2.0)])
    apart = misfit_of(model, *x.split(50))
    assert apart == pytest.approx(1, abs=1e-3)  # mean 1, variance 1
    few = Split("digits", "test", digits.x[:10], digits.y[:10], digits.index[:10], 10)
    assert flag(nn.Sequential(Normalisation((0.0,), (255.0,)).layer(), nn.Flatten(), nn.Linear(64, 10)), few) == ""


def test_losses_of_few_images_say_nothing(digits: Split) -> None:
    """A network without batch norm that lacks its normalisation: noticed by all images, not by sixty alone."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 10)
    optimizer = torch.optim.Adam(linear.parameters(), 0.01)
    inside = (digits.x.flatten(1) - 0.5) / 0.1
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(linear(inside), digits.y).backward()
        optimizer.step()
    model = nn.Sequential(Normalisation((0.0,), (10.0,)).layer(), nn.Flatten(), linear).eval()
    sixty = Split("digits", "test", digits.x[:60], digits.y[:60], digits.index[:60], 10)
    assert flag(model, digits)
    assert flag(model, sixty) == ""
    assert flag(model, with_wider(sixty, digits, seed=0)) == flag(model, digits)
