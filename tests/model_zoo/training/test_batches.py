"""Which images share a batch, with and without a pool."""

import pytest
import torch

from benchmark.suites.registry import SUITES
from benchmark.training.settings import training_settings
from model_zoo.defenses.registry import DEFENSES
from model_zoo.training.batches import Images, batches
from model_zoo.training.recipe import Recipe
from model_zoo.training.recipes import BURN_IN, recipe


def images(labelled: int, pooled: int) -> Images:
    n = labelled + pooled
    return Images(torch.zeros(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64), torch.arange(n), labelled)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_without_a_pool_every_image_comes_once() -> None:
    parts = list(batches(images(10, 0), 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))


@pytest.mark.parametrize("pooled", [3, 10, 25])
def test_half_of_every_batch_is_of_the_pool_which_is_gone_round(pooled: int) -> None:
    parts = list(batches(images(10, pooled), 8))
    assert [len(part) for part in parts] == [8, 8, 4]
    for part in parts:
        assert (part[: len(part) // 2] < 10).all()
        assert (part[len(part) // 2 :] >= 10).all()
    places = torch.cat(parts).tolist()
    assert sorted(place for place in places if place < 10) == list(range(10))
    counts = torch.tensor([places.count(10 + i) for i in range(pooled)])
    assert counts.max() - counts.min() <= 1


def test_schedules_of_the_learning_rate() -> None:
    def rates(schedule: str, *places: tuple[int, float]) -> list[float]:
        chosen = Recipe("digits-cnn", 4, 64, "sgd", 0.2, milestones=[(3, 0.02)], schedule=schedule)
        return [chosen.lr_at(*place) for place in places]

    places = ((1, 0.0), (2, 0.0), (3, 0.0), (4, 0.5), (4, 1.0))
    assert rates("milestones", *places) == [0.2, 0.2, 0.02, 0.02, 0.02]
    assert rates("cyclic", *places) == pytest.approx([0.0, 0.1, 0.2, 0.05, 0.0])
    assert rates("cosine", *places) == pytest.approx([0.2, 0.170711, 0.1, 0.007612, 0.0], abs=1e-6)


def test_parameters_of_the_loss_change_once_their_share_of_the_epochs_has_passed() -> None:
    chosen = Recipe("digits-cnn", 9, 64, "sgd", 0.1, param_schedule=[("tau", 2 / 9, 1.0), ("tau", 5 / 9, 2.0)])
    taus = [chosen.params_at({"tau": 0.0, "beta": 6.0}, epoch)["tau"] for epoch in (1, 2, 3, 5, 6, 9)]
    assert taus == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert chosen.params_at({"tau": 0.0, "beta": 6.0}, 9)["beta"] == 6.0


@pytest.mark.parametrize(
    ("defense", "name", "changes"),
    [
        ("fat", "tau", {51: 1, 91: 2}),
        ("fat-trades", "tau", {31: 1, 51: 2, 71: 3}),
        ("fat-mart", "tau", {21: 1, 41: 2, 61: 3, 81: 4}),
        ("gairat", "lam", {1: BURN_IN, 60: -1}),
        ("gair-fat", "tau", {41: 3, 71: 6}),
        ("gair-rst", "lam", {1: BURN_IN, 100: 3}),
    ],
)
def test_parameters_change_in_the_epochs_of_their_authors(defense: str, name: str, changes: dict[int, float]) -> None:
    chosen = recipe(defense, "cifar10", "paper")
    values = [chosen.params_at({name: 0.0}, epoch)[name] for epoch in range(chosen.epochs + 1)]
    assert {e: values[e] for e in range(1, chosen.epochs + 1) if values[e] != values[e - 1]} == changes


def test_settings_of_the_papers_are_those_of_their_code() -> None:
    half_half = recipe("half-half", "cifar10", "paper")
    assert half_half.inner_rel_step_size * (half_half.epsilon or 0) == pytest.approx(0.007)
    assert {recipe("cat", dataset, "fast").inner_steps for dataset in ("cifar10", "cifar100", "svhn")} == {7}
    assert recipe("cat", "cifar10", "paper").inner_steps == 7
    smoothing = recipe("smoothing", "cifar10", "paper")
    assert (smoothing.batch_size, smoothing.architecture) == (400, "resnet-18+cifar10-norm")


def test_a_parameter_that_the_user_sets_stays_as_it_is() -> None:
    params, chosen = training_settings(DEFENSES["gair-fat"], SUITES["digits"], "fast", ["tau=1"])
    last = [chosen.params_at(params, epoch) for epoch in (1, chosen.epochs)]
    assert [values["tau"] for values in last] == [1.0, 1.0]
    assert [values["lam"] for values in last] == [BURN_IN, 0.0]


def test_settings_hold_what_determines_the_weights_and_no_path() -> None:
    plain = Recipe("digits-cnn", 9, 64, "sgd", 0.1)
    assert {"schedule", "replays", "withheld", "source", "pool"} & set(plain.settings()) == set()
    assert Recipe("digits-cnn", 9, 64, "sgd", 0.1, source="x", pool="y").settings() == plain.settings()
    changed = Recipe("digits-cnn", 9, 64, "sgd", 0.1, replays=4, schedule="cosine").settings()
    assert changed == {**plain.settings(), "replays": 4, "schedule": "cosine"}
