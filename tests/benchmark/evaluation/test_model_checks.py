"""What must hold before any attack: errors where the run would be meaningless, flags where there is a caveat."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_checks import Checked, check_images, check_model

CPU = Hardware(torch.device("cpu"), torch.float32, 64)


class Model(nn.Module):
    """A model that is a function."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def split(n: int = 100) -> Split:
    """Images of one bright pixel in four, which is the class."""
    y = torch.arange(n) % 4
    x = torch.zeros(n, 1, 2, 2)
    x.view(n, 4)[torch.arange(n), y] = 0.5
    return Split("toy", "test", x, y, torch.arange(n), 4)


def check(function: Callable[[Tensor], object], images: Split | None = None) -> Checked:
    return check_model("mine", Model(function), split() if images is None else images, CPU)


@pytest.mark.parametrize(("side", "least", "most"), [(2, 5, 7), (192, 1, 4)])
def test_large_images_are_checked_in_fewer_passes(side: int, least: int, most: int) -> None:
    """By how many images the model sees for each that there is."""
    small, seen = split(100), 0
    images = replace(small, x=nn.functional.interpolate(small.x, size=side, mode="nearest"))

    def counted(x: Tensor) -> Tensor:
        nonlocal seen
        seen += len(x)
        return logits(nn.functional.avg_pool2d(x, side // 2))

    assert list(check(counted, images).flags) == []
    assert least <= seen / len(images) <= most


def test_labels_that_count_from_one_are_suspected() -> None:
    few = split(100)
    with pytest.raises(InputError, match="labels count from 0, so take 1 from each"):
        check(logits, replace(few, y=few.y + 1, classes=5))
    kept = few.y < 3
    shifted = replace(few, x=few.x[kept], y=few.y[kept] + 1, index=few.index[kept])
    with pytest.raises(InputError, match="no image has the label 0"):
        check(logits, shifted)


class Flat(nn.Module):
    """Its logits are right, and their gradient is zero on some classes."""

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        shown = logits(nn.functional.avg_pool2d(x, x.shape[-1] // 2))
        is_flat = (shown.argmax(1, keepdim=True) == torch.tensor(self.classes)).any(1, keepdim=True)
        return torch.where(is_flat, shown.detach() + 0 * x.mean(), shown)


@pytest.mark.parametrize("side", [2, 224])
def test_images_without_gradient_are_found_though_classes_lie_one_behind_the_other(side: int) -> None:
    few = split(100)
    order = few.y.argsort(stable=True)
    large = nn.functional.interpolate(few.x[order], size=side, mode="nearest")
    images = replace(few, x=large, y=few.y[order])
    (flag,) = check_model("mine", Flat([1, 2, 3]), images, CPU).flags
    assert flag.startswith("zero-gradients(7")  # of a hundred images, or of every third or so
    assert list(check_model("mine", Flat([]), images, CPU).flags) == []


def refusal(function: Callable[[Tensor], object]) -> str:
    with pytest.raises(InputError) as caught:
        check(function)
    message = str(caught.value)
    assert message.startswith("model mine: ")
    assert "\n" not in message
    return message


def logits(x: Tensor) -> Tensor:
    return 10 * x.flatten(1) - 2


def test_a_sound_model_has_no_flags_and_its_predictions_are_kept() -> None:
    checked = check(logits)
    assert list(checked.flags) == []
    assert torch.equal(checked.prediction, split().y)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    def spoiled(x: Tensor) -> Tensor:
        values = logits(x)
        values[3, 1] = bad
        return values

    assert "finite logits" in refusal(spoiled)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x: logits(x)[:, :3], "(64, 3)"),
        (lambda x: torch.cat([logits(x)] * 2, 1), "(64, 8)"),
        (lambda x: logits(x)[0], "(4,)"),
        (lambda x: x, "(64, 1, 2, 2)"),
        (lambda x: (logits(x), x), "tuple"),
    ],
)
def test_outputs_that_are_not_one_logit_a_class_are_an_error(function: Callable[[Tensor], object], got: str) -> None:
    message = refusal(function)
    assert "expected logits of shape (64, 4)" in message
    assert message.endswith(f"got {got}")


def test_a_model_that_cannot_take_the_images_is_an_error() -> None:
    message = refusal(nn.Conv2d(3, 4, 1))
    assert "cannot take toy images of shape (64, 1, 2, 2)" in message


@pytest.mark.parametrize("error", [RuntimeError("first line\nsecond line"), KeyError("key"), AssertionError()])
def test_whatever_a_model_raises_is_one_line(error: Exception) -> None:
    def raising(_x: Tensor) -> Tensor:
        raise error

    assert "cannot take toy images" in refusal(raising)


@pytest.mark.parametrize("right", [0, 25])
def test_clean_accuracy_at_chance_is_an_error(right: int) -> None:
    def partly(x: Tensor) -> Tensor:
        return logits(x) if len(x) == 64 else torch.cat([logits(x)[:right], logits(x)[right:].roll(1, 1)])

    images = split()
    with pytest.raises(InputError, match=r"always naming one class would get 25"):
        check_model("mine", Model(partly), images, replace(CPU, batch_size=100))


def test_clean_accuracy_just_above_chance_is_accepted() -> None:
    def partly(x: Tensor) -> Tensor:
        return logits(x) if len(x) == 64 else torch.cat([logits(x)[:26], logits(x)[26:].roll(1, 1)])

    assert (
        int((check_model("mine", Model(partly), split(), replace(CPU, batch_size=100)).prediction == split().y).sum())
        == 26
    )


def test_probabilities_are_flagged_and_no_error() -> None:
    assert list(check(lambda x: logits(x).softmax(1)).flags) == ["probabilities"]


@pytest.mark.parametrize("function", [lambda x: logits(x).log_softmax(1), lambda x: 10 * x.flatten(1)])
def test_log_probabilities_and_positive_logits_are_not_flagged(function: Callable[[Tensor], Tensor]) -> None:
    assert list(check(function).flags) == []


def test_a_randomized_model_is_flagged_and_no_error() -> None:
    def noisy(x: Tensor) -> Tensor:
        return logits(x) + 1e-3 * torch.rand(len(x), 4)

    assert list(check(noisy).flags) == ["randomized"]


def test_checking_builds_no_graph_and_leaves_the_model_as_it_was() -> None:
    layer = nn.Linear(4, 4)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    network = nn.Sequential(nn.Flatten(), layer).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prediction = check_model("mine", network, split(), CPU).prediction
    assert not prediction.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [parameter.grad for parameter in network.parameters()] == [None, None]
    assert not network.training


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, float("nan")])
def test_images_outside_the_pixel_range_are_an_error(value: float) -> None:
    images = split()
    images.x[7, 0, 1, 1] = value
    with pytest.raises(InputError, match=r"toy: expected pixels in \[0, 1\]"):
        check_images(images)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_an_error(label: int) -> None:
    images = split()
    images.y[7] = label
    with pytest.raises(InputError, match=r"toy: expected labels in 0\.\.3"):
        check_images(images)


def test_sound_images_pass() -> None:
    check_images(split())


def test_a_model_without_gradients_is_flagged_and_one_that_hides_them_is_an_error() -> None:
    assert list(check(lambda x: 10 * (4 * x.flatten(1)).round() + 0 * x.flatten(1) - 2).flags) == [
        "zero-gradients(100%)"
    ]
    assert "no gradient" in refusal(lambda x: logits(x.detach()))


@pytest.mark.parametrize(("flat", "flagged"), [(1, False), (4, True)])
def test_the_share_without_gradient_is_a_figure_and_a_flag_from_two_percent_on(flat: int, flagged: bool) -> None:
    images = split()
    images = replace(images, x=images.x + 1e-3 * images.index.view(-1, 1, 1, 1))  # no two alike
    right = (logits(images.x).argmax(1) == images.y).nonzero().squeeze(1)[:256]
    dark = images.x[right[:flat]].flatten(1)

    def partly_flat(x: Tensor) -> Tensor:
        is_flat = (x.flatten(1)[:, None] == dark).all(2).any(1)
        return torch.where(is_flat[:, None], logits(x).detach() + 0 * x.flatten(1).sum(1, keepdim=True), logits(x))

    checked = check(partly_flat, images)
    assert checked.zero_gradients == pytest.approx(100 * flat / len(right))
    assert [flag.partition("(")[0] for flag in checked.flags] == (["zero-gradients"] if flagged else [])


def test_a_model_that_is_not_finite_beyond_the_probe_is_an_error() -> None:
    def late(x: Tensor) -> Tensor:
        return logits(x) if len(x) == 64 else logits(x) * float("nan")

    with pytest.raises(InputError, match="finite logits"):
        check(late)


def sound() -> nn.Sequential:
    """A network that names the bright pixel."""
    layer = nn.Linear(4, 4)
    nn.init.eye_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(10)
        layer.bias.fill_(-2.0)
    return nn.Sequential(nn.Flatten(), layer)


def flags_of(model: nn.Module) -> list[str]:
    return list(check_model("mine", model, split(), CPU).flags)


def test_dropout_left_on_is_flagged() -> None:
    model = nn.Sequential(sound(), nn.Dropout(0.01)).eval()
    assert flags_of(model) == []
    model[1].train()
    assert flags_of(model) == ["randomized", "dropout"]


def test_a_model_in_train_mode_is_flagged_for_changing_itself() -> None:
    model = nn.Sequential(sound(), nn.BatchNorm1d(4)).train()
    assert "train-mode" in flags_of(model)
    assert "train-mode" not in flags_of(model.eval())


def test_a_model_that_looks_at_the_whole_batch_is_flagged() -> None:
    assert list(check(lambda x: 3 * logits(x) + logits(x).roll(1, 0)).flags) == ["batch-dependent"]


def test_logits_that_are_the_same_for_every_image_are_an_error() -> None:
    assert "its logits are the same for every image" in refusal(lambda x: torch.ones(len(x), 4) + 0 * x.sum())


def test_logits_so_large_that_cross_entropy_would_be_flat_leave_it_a_gradient() -> None:
    def inflated(x: Tensor) -> Tensor:
        values = logits(x)
        return values + (values * 1e4 - values).detach()  # the margin keeps its slope, the exponentials leave float32

    assert list(check(lambda x: 9 * logits(x)).flags) == []
    assert list(check(inflated).flags) == []


@pytest.mark.parametrize("flag", ["normalisation(own)", "normalisation(twice)"])
def test_normalisation_that_is_missing_or_doubled_is_flagged(flag: str) -> None:
    """Images are told by their brightness, which the model expects normalised, or undoes once too often."""
    n = 400
    y = torch.arange(n) % 4
    x = (0.2 + 0.2 * y.float()).view(n, 1, 1, 1) + torch.linspace(0, 0.1, n).view(n, 1, 1, 1)
    images = Split("toy", "test", x, y, torch.arange(n), 4)
    mean, std = x.mean(), x.std()
    levels = torch.stack([x[y == k].mean() for k in range(4)])

    def sees(x: Tensor, inside: Callable[[Tensor], Tensor]) -> Tensor:
        return -10 * (inside(x).flatten(1) - levels) ** 2

    right = check_model("mine", Model(lambda x: sees(x, lambda x: x)), images, CPU)
    assert list(right.flags) == []
    wrong = Model(lambda x: sees(x, lambda x: (x - mean) / std if "twice" in flag else x * std + mean))
    assert flag in check_model("mine", wrong, images, CPU).flags


class NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient * torch.nan


def test_a_gradient_that_is_not_finite_is_a_mistake_and_not_robustness() -> None:
    assert "expected finite gradients" in refusal(lambda x: logits(NanGradient.apply(x)))
