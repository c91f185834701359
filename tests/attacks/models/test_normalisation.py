"""What a user says of a normalisation, and what stands in front of a model for it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import Compose
from torchvision.transforms import Normalize as Transform

from attacks import attack
from attacks.errors import InputError
from attacks.models.normalisation import (
    USUAL,
    Normalisation,
    Normalize,
    normalisation_of,
    put_in_front,
    require_none_inside,
)
from attacks.models.quirks import find_quirks
from attacks.models.user_model import Quirks, UserModel

MNIST = USUAL["mnist"]


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (None, None, None),
        ("0.1307", "0.3081", MNIST),
        (0.1307, 0.3081, MNIST),
        ([0.1307], (0.3081,), MNIST),
        (torch.tensor([0.5]), np.array([0.25]), Normalisation((0.5,), (0.25,))),
        ("0.485, 0.456,0.406", "0.229,0.224,0.225", USUAL["imagenet"]),
        ("0", "1/255", Normalisation((0.0,), (1 / 255,))),
        ("imagenet", None, USUAL["imagenet"]),
        (None, "cifar10", USUAL["cifar10"]),
        ("mnist", "mnist", MNIST),
        ("mnist", "0.5", Normalisation((0.1307,), (0.5,))),
        ("none", None, USUAL["none"]),
    ],
)
def test_numbers_texts_and_names_are_understood(mean: object, std: object, expected: Normalisation | None) -> None:
    assert normalisation_of(mean, std) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ("0.5", None, "got no std beside '0.5'"),
        (None, 0.5, "got no mean beside 0.5"),
        ("0.5,0.5", "0.5", "got 1 and 2; give one a channel"),
        ("none", "0.5", "got 1 and 0"),
        ("0.5", "0", "std must be above 0, got 0;"),
        ("0.5", "-1", "std must be above 0, got -1;"),
        ("0", "255", "std must be in (0, 1] pixel scale, got 255; divide"),
        ("125.3", "63", "mean must be in [0, 1] pixel scale, got 125.3; divide"),
        ("half", None, "unknown normalisation for mean 'half'; known: imagenet, cifar10, mnist, none"),
        ("imagnet", None, "did you mean 'imagenet'?"),
        ("0.5x", "0.5", "mean: expected numbers such as"),
        ("0.5", "", "std: expected numbers such as"),
        ("0.5", "nan", "unknown normalisation for std 'nan'"),
        (float("nan"), 0.5, "mean: expected numbers such as"),
        (0.5, float("inf"), "std: expected numbers such as"),
        (True, 0.5, "mean: expected numbers such as"),
        (0.5, [], "std: expected numbers such as"),
        (0.5, [None], "std: expected numbers such as"),
        (0.5, object(), "std: expected numbers such as"),
    ],
)
def test_what_means_nothing_is_one_line(mean: object, std: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        normalisation_of(mean, std)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("normalisation", "channels", "remedy"),
    [
        (MNIST, 3, "give --mean 0.1307,0.1307,0.1307 --std 0.3081,0.3081,0.3081"),
        (USUAL["imagenet"], 1, "give as many"),
        (Normalisation((0.5,) * 3, (0.5,) * 3), 1, "give --mean 0.5 --std 0.5"),
    ],
)
def test_another_number_of_channels_is_refused_with_a_remedy(
    normalisation: Normalisation, channels: int, remedy: str
) -> None:
    normalisation.require_channels(len(normalisation.mean))
    USUAL["none"].require_channels(channels)
    with pytest.raises(InputError) as caught:
        normalisation.require_channels(channels)
    assert str(caught.value).endswith(remedy)


def test_the_users_word_replaces_what_a_source_brings_along() -> None:
    assert put_in_front(None, MNIST) == MNIST
    assert put_in_front(USUAL["imagenet"], MNIST) == USUAL["imagenet"]
    assert put_in_front(USUAL["none"], MNIST) is None
    assert put_in_front(USUAL["none"]) is put_in_front(None) is None


class Sums(nn.Module):
    """Two logits: the sum of an image, and nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.sum((1, 2, 3)), torch.zeros(len(x))], 1)


def test_a_user_model_shows_its_network_normalised_images() -> None:
    x = torch.rand(8, 3, 4, 4)
    quirks = find_quirks(Sums(), x, normalisation=USUAL["imagenet"])
    assert quirks == Quirks(normalisation=USUAL["imagenet"])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(UserModel(Sums(), quirks)(x), Sums()((x - mean) / std))


def test_the_quirks_of_a_network_are_those_that_it_has_on_normalised_images() -> None:
    class Negative(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.min() >= 0:
                raise ValueError("expected normalised images")
            return x.flatten(1).double()

    x = torch.rand(8, 1, 2, 2)
    x[:, :, 0, 0] = 0
    assert find_quirks(Negative(), x, normalisation=MNIST) == Quirks(normalisation=MNIST)


def test_an_attack_with_a_normalisation_is_that_on_a_model_wrapped_by_hand() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x, y = torch.rand(20, 1, 4, 4), torch.arange(20) % 3
    by_hand = attack(nn.Sequential(Normalize((0.2,), (0.5,)), network).eval(), x, y, "pgd-20", epsilon=0.02)
    by_us = attack(network, x, y, "pgd-20", epsilon=0.02, mean=0.2, std=[0.5])
    assert torch.equal(by_hand.x_adv, by_us.x_adv)
    assert torch.equal(by_hand.robust, by_us.robust)
    assert not torch.equal(by_us.x_adv, attack(network, x, y, "pgd-20", epsilon=0.02).x_adv)


def test_an_attack_refuses_another_number_of_channels() -> None:
    with pytest.raises(InputError, match="expected 1 value of mean and std"):
        attack(Sums().eval(), torch.rand(2, 1, 4, 4), torch.zeros(2).long(), "fgsm", epsilon=0.1, mean="imagenet")


class Listed(nn.Module):
    """A normalisation as torchvision has it, with lists; of another name, another thing."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std = [0.5], [0.5]


class LayerOfNoise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std = 0.0, 0.1


class NormalizeChannels(Listed):
    pass


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image_mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("image_std", torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("model", [Wrapped(), nn.Sequential(NormalizeChannels()), nn.Sequential(Normalize((0,), (1,)))])
def test_no_normalisation_is_added_to_one_that_the_model_has(model: nn.Module) -> None:
    with pytest.raises(InputError, match="expected a model without a normalisation"):
        require_none_inside(model, 1)


class Channels(nn.Module):
    """One number a channel, as people write it by hand: in lists, in flat buffers, or in a transform."""

    def __init__(self, how: str) -> None:
        super().__init__()
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        if how == "buffers":
            self.register_buffer("mean", torch.tensor(mean))
            self.register_buffer("std", torch.tensor(std))
        elif how == "lists":
            self.mean, self.std = mean, std
        elif how == "arrays":
            self.mean, self.std = np.array(mean), np.array(std)  # type: ignore[assignment]
        else:
            self.transform = Compose([Transform(mean, std)])


@pytest.mark.parametrize("how", ["buffers", "lists", "arrays", "transforms"])
def test_one_number_a_channel_is_a_normalisation_however_it_is_held(how: str) -> None:
    with pytest.raises(InputError, match="expected a model without a normalisation"):
        require_none_inside(nn.Sequential(Channels(how)), 3)


def test_a_tensor_of_one_number_is_one_for_grey_images_but_noise_is_not() -> None:
    def scaled(mean: float) -> nn.Module:
        model = nn.Module()
        model.register_buffer("mean", torch.tensor(mean))
        model.register_buffer("std", torch.tensor(0.3081))
        return model

    with pytest.raises(InputError, match="expected a model without a normalisation"):
        require_none_inside(scaled(0.1307), 1)
    require_none_inside(scaled(0.0), 1)


@pytest.mark.parametrize("model", [Listed(), LayerOfNoise(), nn.BatchNorm2d(3), nn.LayerNorm(3), Sums()])
def test_other_layers_are_no_normalisation_of_images(model: nn.Module) -> None:
    require_none_inside(model, 3)
