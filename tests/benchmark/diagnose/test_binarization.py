"""Attacks that work find the hidden points, masks hide them, and adaptive attacks find them again."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import masks
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from attacks.registry import attack_spec
from attacks.spec import AttackSpec
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.diagnose.binarization import binarization
from benchmark.diagnose.features import Features
from benchmark.diagnose.finding import findings
from benchmark.diagnose.read_out import RIDGE, logistic_regressions
from benchmark.gate.canaries import Rounded
from benchmark.suites.registry import SUITES
from model_zoo.load import load_model
from model_zoo.registry import model_spec

SUITE = SUITES["digits"]


@pytest.fixture(autouse=True)
def fewer_inner_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.diagnose.binarization.INNER", 199)


def shipped(name: str) -> nn.Module:
    return load_model(model_spec(name, "digits", Path()), Path(), classes=10)


@cache
def images() -> tuple[Tensor, Tensor]:
    split = balanced_subset(load("digits", "test", data_dir=Path()), 16, seed=0)
    return split.x, split.index


def attacked(name: str) -> AttackSpec:
    return SUITE.attack(name) or attack_spec(name)


def outcome(model: nn.Module, attack: str, *, epsilon: float | None = None, surrogate: nn.Module | None = None) -> str:
    found = binarization(
        model, *images(), SUITE.threat, attacked(attack), epsilon=epsilon, surrogate=surrogate, batch_size=500
    )
    assert found.n >= 5
    assert found.n + found.too_easy + found.left_out == len(images()[0])
    return findings([found.measured])[0].outcome


@pytest.mark.parametrize("attack", ["pgd-40", "autoattack"])
def test_on_a_robust_model_attacks_that_work_find_the_hidden_points(attack: str) -> None:
    assert outcome(shipped("madry"), attack) == "passes"


def test_fgsm_with_a_tenth_of_epsilon_finds_none() -> None:
    assert outcome(shipped("madry"), "fgsm", epsilon=SUITE.threat.epsilon / 10) == "fails"


class RoundedStraightThrough(Rounded):
    """The rounding canary, whose backward pass is the identity: BPDA."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + ((8 * x).round() / 8 - x).detach())
        return logits


@pytest.mark.parametrize(
    ("mask", "adaptive"),
    [
        (lambda: Rounded(shipped("natural")), lambda: RoundedStraightThrough(shipped("natural"))),
        (masks.sign_flipped, masks.unmasked),
    ],
    ids=["rounding canary", "sign flipped"],
)
def test_a_mask_hides_the_points_from_pgd_and_not_from_the_adaptive_attack(
    mask: Callable[[], nn.Module], adaptive: Callable[[], nn.Module]
) -> None:
    model = mask().eval().requires_grad_(False)
    assert outcome(model, "pgd-40") == "fails"
    assert outcome(model, "pgd-40", surrogate=adaptive().eval().requires_grad_(False)) == "passes"


def test_features_are_what_the_last_linear_layer_reads_and_leave_no_hook_behind() -> None:
    model = shipped("natural")
    x, _ = images()
    features = Features(model)(x)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert features.shape == (len(x), last.in_features)
    assert torch.allclose(last(features), model(x))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_a_linear_layer_features_are_the_logits() -> None:
    x, _ = images()
    assert torch.equal(Features(nn.Flatten())(x), x.flatten(1))


def test_a_logistic_regression_separates_what_a_plane_can_as_sklearn_does() -> None:
    torch.manual_seed(0)
    inside, beyond = torch.randn(3, 60, 20) * torch.rand(20), 0.8 * torch.randn(3, 20)
    found = logistic_regressions(inside, beyond)
    for points, one, direction in zip(inside.double(), beyond.double(), found, strict=True):
        assert (points @ direction).max() < one @ direction
        rows = torch.cat([points, one[None]])
        scale = rows.std(0)
        theirs = LogisticRegression(C=1 / RIDGE, max_iter=10_000, tol=1e-8).fit(
            ((rows - rows.mean(0)) / scale).numpy(), [0] * 60 + [1]
        )
        expected = torch.from_numpy(theirs.coef_[0]) / scale
        assert torch.cosine_similarity(direction, expected, dim=0) > 0.999


def test_with_more_features_than_points_the_read_out_is_that_of_the_span() -> None:
    draw = torch.Generator().manual_seed(0)
    inside, beyond = torch.randn(2, 30, 50, generator=draw), torch.randn(2, 50, generator=draw) + 0.5
    wide = logistic_regressions(inside, beyond)
    assert wide.shape == (2, 50)
    for image in range(2):
        scores = inside[image].double() @ wide[image]
        assert (beyond[image].double() @ wide[image]) > scores.max()
    still = torch.ones(2, 31, 30)  # features that say nothing
    wider = logistic_regressions(torch.cat([inside, still[:, 1:]], 2), torch.cat([beyond, still[:, 0]], 1))
    assert (torch.cosine_similarity(wider[:, :50], wide) > 0.999).all()
    assert wider[:, 50:].abs().max() < 1e-6 * wide.abs().max()


def test_a_hidden_point_is_seen_by_a_float32_pass() -> None:
    """Features beside which the point's own difference is rounded away have no point to find, and that is said."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = shipped("madry")
            self.read = nn.Linear(10, 10)
            nn.init.eye_(self.read.weight)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.read(self.network(x) + 1e6)
            return logits

    found = binarization(Shifted().eval().requires_grad_(False), *images(), SUITE.threat, attacked("pgd-40"))
    assert found.left_out > 8
    assert "images have none" in found.measured.measured or "has one to find" in found.measured.measured
