"""Checks of gradient, loss and forward pass: an honest model passes, and each kind of mask fails the check for it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import masks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.diagnose.finding import Measured, findings, share_check
from benchmark.diagnose.forward_checks import forward_checks
from benchmark.diagnose.gradient_checks import saturated, true_gradient, zero_gradient
from benchmark.diagnose.loss_checks import converged, smooth
from benchmark.suites.registry import SUITES
from model_zoo.load import load_model
from model_zoo.registry import model_spec

SUITE = SUITES["digits"]
PGD = SUITE.attack("pgd-40")
assert PGD is not None


@cache
def images() -> tuple[Tensor, Tensor, Tensor]:
    split = balanced_subset(load("digits", "test", data_dir=Path()), 50, seed=0)
    return split.x, split.y, split.index


def checked(model: nn.Module) -> dict[str, str]:
    """The outcome of every direct check."""
    assert PGD is not None
    model = model.eval().requires_grad_(False)
    with torch.no_grad():
        correct = model(images()[0]).argmax(1) == images()[1]
    x, y, index = (tensor[correct] for tensor in images())
    found: list[Measured] = [
        zero_gradient(model, x, y),
        saturated(model, x, y),
        true_gradient(model, x, y, SUITE.threat, index, seed=0),
        smooth(model, x, y, SUITE.threat, index, seed=0),
        converged(PGD, model, x, y, SUITE.threat, index, seed=0),
        *forward_checks(model, x, judge_draws=0, eot=1),
    ]
    return {finding.check: finding.outcome for finding in findings(found)}


@pytest.mark.parametrize("name", ["madry", "ibp"])
def test_an_honest_model_fails_none(name: str) -> None:
    outcomes = checked(load_model(model_spec(name, "digits", Path()), Path(), classes=10))
    assert set(outcomes.values()) == {"passes"}


@pytest.mark.parametrize(
    ("mask", "check"),
    [
        (masks.sign_flipped, "true-gradient"),
        (masks.permuted, "true-gradient"),
        (masks.sine, "true-gradient"),
        (masks.dark, "true-gradient"),
        (masks.detached, "true-gradient"),
        (masks.straight_through, "true-gradient"),
        (masks.rounding, "zero-gradients"),
        (masks.logits_x300, "saturated-loss"),
        (masks.purified_at_test, "plain-forward"),
        (masks.noise, "deterministic"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_mask_fails_the_check_that_is_for_it(mask: Callable[[], nn.Module], check: str) -> None:
    assert checked(mask())[check] == "fails"


def test_probabilities_are_told_from_logits() -> None:
    x = torch.rand(4, 1, 8, 8)
    softmax = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))
    outcomes = {found.check: found.figure for found in forward_checks(softmax, x, judge_draws=0, eot=1)}
    assert outcomes == {"deterministic": 0.0, "plain-forward": 0.0, "logits": 1.0}


class Rough(nn.Module):
    """Logits with a wave over the images that is short beside epsilon and higher than the margin."""

    def forward(self, x: Tensor) -> Tensor:
        score = 1 + 5 * torch.sin(300 * x.flatten(1)).sum(1)
        return torch.stack([score.abs(), torch.zeros_like(score)], 1)


def test_a_rough_loss_is_told_from_a_smooth_one() -> None:
    x, y, index = torch.zeros(40, 1, 8, 8), torch.zeros(40, dtype=torch.int64), torch.arange(40)
    (finding,) = findings([smooth(Rough(), x, y, ThreatModel("Linf", 0.2), index, seed=0)])
    assert finding.outcome == "fails"


def test_where_neither_logits_move_nor_gradients_are_there_the_gradient_is_no_true_one() -> None:
    def stairs(x: Tensor) -> Tensor:
        return F.one_hot((2 * x.flatten(1)[:, :1]).long().squeeze(1), 2).float() + 0 * x.sum()

    x, y, index = torch.full((40, 1, 8, 8), 0.2), torch.zeros(40, dtype=torch.int64), torch.arange(40)
    (finding,) = findings([true_gradient(stairs, x, y, ThreatModel("Linf", 0.2), index, seed=0)])
    assert finding.outcome == "cannot-tell"


def test_an_attack_of_tiny_steps_has_not_converged() -> None:
    assert PGD is not None
    model = load_model(model_spec("madry", "digits", Path()), Path(), classes=10)
    x, y, index = images()
    slow = PGD.with_settings(rel_step_size=0.005, start="none")
    (finding,) = findings([converged(slow, model, x, y, SUITE.threat, index, seed=0)])
    assert finding.outcome == "fails"
    (short,) = findings([converged(PGD.with_settings(steps=20), model, x, y, SUITE.threat, index, seed=0)])
    assert short.outcome == "cannot-tell"


def test_randomness_is_let_pass_just_where_both_sides_average_it() -> None:
    x, noisy = images()[0][:8], masks.noise().eval()
    figures = {}
    for handled in ((0, 1), (1, 20), (20, 1), (20, 20)):
        found = forward_checks(noisy, x, judge_draws=handled[0], eot=handled[1])
        figures[handled] = {one.check: one.figure for one in found}["deterministic"]
    assert figures == {(0, 1): 1.0, (1, 20): 1.0, (20, 1): 1.0, (20, 20): 0.0}


def test_no_images_and_too_few_of_them_cannot_tell() -> None:
    (none, few, enough) = findings([share_check("a", 0, n, 5.0, "") for n in (0, 1, 9)])
    assert (none.outcome, few.outcome, enough.outcome) == ("cannot-tell", "cannot-tell", "passes")


class Short(nn.Module):
    """Memory for a gradient of four images at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.network = load_model(model_spec("madry", "digits", Path()), Path(), classes=10)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 4 and x.requires_grad:
            raise torch.OutOfMemoryError("no more memory")
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("check", [zero_gradient, saturated])
def test_want_of_memory_is_no_fact_about_the_model(check: Callable[..., Measured]) -> None:
    x, y, _ = images()
    with pytest.raises(torch.OutOfMemoryError):
        check(Short(), x, y, batch_size=8)
    assert check(Short(), x, y, batch_size=4).figure == 0.0


def test_of_a_model_in_sixteen_bits_differences_cannot_tell() -> None:
    x, y, index = images()
    (finding,) = findings([true_gradient(Short(), x, y, SUITE.threat, index, seed=0, is_half=True)])
    assert finding.outcome == "cannot-tell"
