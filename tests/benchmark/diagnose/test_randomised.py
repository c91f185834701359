"""What single draws, the mean and the worst of many draws say of a model that answers at random."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.diagnose.randomised import randomised_rows
from benchmark.suites.registry import SUITES
from model_zoo.load import load_model
from model_zoo.registry import model_spec


class Noisy(nn.Module):
    """The undefended network on images with much noise."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.network = load_model(model_spec("natural", "digits", Path()), Path(), classes=10)
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x + self.sigma * torch.randn_like(x))
        return logits


def accuracies(sigma: float) -> dict[str, float]:
    attack = SUITES["digits"].attack("pgd-20")
    assert attack is not None
    split = balanced_subset(load("digits", "test", data_dir=Path()), 20, seed=0)
    on = split.x, split.y, split.index
    rows, forwards, backwards = randomised_rows(
        Noisy(sigma).eval().requires_grad_(False), *on, ThreatModel("Linf", 0.05), attack, seed=0
    )
    assert forwards > 20 * 2 * len(split)
    assert backwards > 0
    assert {row.margin for row in rows} == {None}
    return {row.check: row.figure for row in rows if row.figure is not None}


@pytest.fixture(scope="module")
def noisy() -> dict[str, float]:
    return accuracies(0.4)


def test_there_is_a_clean_control_of_every_row(noisy: dict[str, float]) -> None:
    kinds = ("single-draw", "expected", "worst-of-20")
    assert list(noisy) == [f"{points}-{kind}" for points in ("clean", "attacked") for kind in kinds]


def test_the_worst_of_many_draws_loses_clean_images_by_chance_alone(noisy: dict[str, float]) -> None:
    assert noisy["clean-worst-of-20"] < noisy["clean-expected"] - 20


def test_an_attack_costs_accuracy_and_the_same_seed_gives_the_same_rows(noisy: dict[str, float]) -> None:
    assert noisy["attacked-expected"] < noisy["clean-expected"] - 5
    torch.manual_seed(99)  # whatever was drawn before
    assert accuracies(0.4) == noisy


def test_without_noise_all_three_are_one_number() -> None:
    still = accuracies(0.0)
    for images in ("clean", "attacked"):
        assert len({still[f"{images}-{kind}"] for kind in ("single-draw", "expected", "worst-of-20")}) == 1
