"""Studies of digits models: kappa, passes, epsilons, capacity and overfitting, each on its smallest setting."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.data.split import Split
from benchmark.studies import capacity, epsilon_train, fat_passes, kappa, robust_overfitting
from benchmark.studies.study import Inputs
from benchmark.studies.training import RECIPE, digits_images, trained

SMALL = {"train": 60, "test": 40, "epochs": 1}


class Threshold(nn.Module):
    """Class 1 where the one pixel is above 0.5: the distance of x is |x - 0.5|."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = 10 * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([-s, s], 1)


def test_the_distance_is_the_least_radius_that_crosses_the_boundary() -> None:
    x = torch.tensor([0.45, 0.35, 0.72, 0.95, 0.4]).view(-1, 1, 1, 1)
    images = Split("line", "test", x, torch.tensor([0, 0, 1, 1, 1]), torch.arange(5), 2)
    found = kappa.distances(Threshold().eval(), images, torch.tensor([0.1, 0.2, 0.3]), seed=0)
    np.testing.assert_allclose(found.numpy(), [0.1, 0.2, 0.3, 0.4, 0.0], atol=1e-6)


def test_kappa_orders_images_as_their_distance_does() -> None:
    result = kappa.compute(Inputs(), images=60, radii=4, steps=10)
    assert [one.what for one in result.comparisons if not one.agrees] == []
    assert set(result.table.groupby("model")["images"].sum()) == {60}
    assert result.table["kappa"].between(0, 10).all()


def test_friendly_trainings_take_fewer_passes_and_more_of_them_later() -> None:
    result = fat_passes.compute(Inputs())
    assert len(result.comparisons) == 2 * len(fat_passes.PAIRS)
    assert [one.what for one in result.comparisons if not one.agrees] == []
    full = result.table[(result.table["suite"] == "digits") & (result.table["model"] == "gairat")]
    assert full["backwards_per_image"].unique().tolist() == [11.0]  # ten steps and an update


def test_every_defense_starts_from_the_same_weights_and_learns() -> None:
    images = digits_images("train", 100, Inputs())
    watched: list[int] = []
    before, after = (
        trained("natural", images, seed=0, epochs=epochs, watch=lambda epoch, _: watched.append(epoch))
        for epochs in (1, 8)
    )
    losses = [nn.functional.cross_entropy(model(images.x), images.y).item() for model in (before, after)]
    assert losses[1] < losses[0]
    assert watched == [1, *range(1, 9)]
    assert RECIPE.inner_steps * RECIPE.inner_rel_step_size > 2  # the inner attack can cross the ball


def test_studies_that_train_have_a_row_a_network_and_compare_what_they_measured() -> None:
    epsilons = epsilon_train.compute(Inputs(), **SMALL).table
    assert len(epsilons) == len(epsilon_train.EPSILONS) * len(epsilon_train.DEFENSES)
    capacities = capacity.compute(Inputs(), **SMALL).table
    assert (capacities["robust_acc"] <= capacities["clean_acc"]).all()
    weights = capacities.groupby("network", sort=False)["weights"].first()
    assert weights[capacity.NETWORKS[0]] < weights[capacity.NETWORKS[1]]


def test_overfitting_is_the_best_epoch_above_the_last_on_test_images() -> None:
    result = robust_overfitting.compute(Inputs(), train=40, test=40, epochs=4, every=2)
    assert result.table["epoch"].tolist() == [2, 4]
    best, last = result.table["test_robust"].max(), result.table["test_robust"].iloc[-1]
    assert result.comparisons[0].measured == pytest.approx(best - last - 100 * 3 * (0.25 / 40) ** 0.5)
