"""The training loop: killed at any moment it ends with the same bytes, and it never ends with a useless model."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.cli.train import _training_images
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset, holdout
from benchmark.suites.registry import SUITES
from benchmark.training.settings import training_settings
from model_zoo.architectures.registry import build, find
from model_zoo.bounds.certified import BOUNDS
from model_zoo.card import read_card
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DEFENSES, DefenseSpec
from model_zoo.load import load_model
from model_zoo.training import loop as training_module
from model_zoo.training.augmentation import augment
from model_zoo.training.loop import Training, hash_seed, train
from model_zoo.training.process_group import Team, alone
from model_zoo.training.recipe import Recipe, with_overrides
from model_zoo.training.recipes import RECIPES, recipe
from model_zoo.weights.checkpoint import load_state_dict

ROOT = Path(__file__).resolve().parents[3]
Command = Callable[..., subprocess.CompletedProcess[str]]
TINY = {"epochs": 3, "train_examples": 200, "validation": 50, "inner_steps": 2}


def words(defense: str = "half-half", **settings: object) -> list[str]:
    tiny = {name: value for name, value in TINY.items() if DEFENSES[defense].bound is None or name != "inner_steps"}
    pairs = [f"{name}={value}" for name, value in {**tiny, **settings}.items()]
    return ["train", "--defense", defense, "--quiet", *(word for pair in pairs for word in ("--set", pair))]


def files(folder: Path) -> dict[str, bytes]:
    """By name what a training wrote, but for the seconds that it took."""
    paths = sorted((folder / "checkpoints/digits").iterdir())
    return {path.name: re.sub(rb'"seconds": \d+', b'"seconds": -', path.read_bytes()) for path in paths}


@pytest.fixture(scope="module")
def uninterrupted(command: Command, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Everything that `words()` writes when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert command(folder, *words()).returncode == 0
    return files(folder)


@pytest.fixture(scope="module")
def images() -> tuple[Split, Split]:
    """Few images to train on, and to validate on."""
    rest, validation = holdout(load("digits", "train", data_dir=Path("unused")), 50, seed=0)
    return balanced_subset(rest, 200, seed=0), validation


def toy(defense: DefenseSpec = DEFENSES["natural"], **settings: Any) -> Training:
    chosen = Recipe("digits-cnn", 3, 64, "adam", 1e-3, **{"validation": 50, "inner_steps": 2, **settings})
    return Training(defense, dict(defense.params), chosen, ThreatModel("Linf", 0.2), 0, "digest")


def run(training: Training, images: tuple[Split, Split], stem: Path) -> str:
    return train(training, *images, stem, team=alone(torch.device("cpu")), quiet=True).sha256


# What it ends with


def test_training_ends_with_two_checkpoints_a_curve_and_a_card(uninterrupted: dict[str, bytes]) -> None:
    stem = "half-half"
    assert sorted(uninterrupted) == [stem + s for s in (".csv", ".json", ".last.safetensors", ".png", ".safetensors")]
    curve = uninterrupted[stem + ".csv"].decode().splitlines()
    card = json.loads(uninterrupted[stem + ".json"].replace(b'"seconds": -', b'"seconds": 0'))["training"]
    passes = [float(line.split(",")[-1]) for line in curve[1:]]
    assert card["backwards_per_image"] == pytest.approx(sum(passes), abs=1e-3)
    assert curve[0] == "epoch,lr,loss,validation_clean,validation_robust,backwards_per_image"
    assert [line.split(",")[0] for line in curve[1:]] == ["1", "2", "3"]


def test_a_trained_model_is_known_by_name_and_can_be_evaluated(command: Command, tmp_path: Path) -> None:
    trained = command(tmp_path, *words("natural"), "--name", "mine", "--data-dir", "my data", "--seed", "0")
    assert trained.returncode == 0
    assert trained.stdout.endswith("run_benchmark.py --suite digits --models mine --data-dir 'my data'\n")
    result = command(tmp_path, "--models", "mine", "--attacks", "fgsm", "--examples", "20", "--quiet")
    assert result.returncode == 0, result.stderr
    assert "| mine " in result.stdout
    assert any(line.split()[:3] == ["mine", "digits", "natural"] for line in _listed(command, tmp_path))


def _listed(command: Command, folder: Path) -> list[str]:
    return command(folder, "list", "models").stdout.splitlines()


def test_a_name_that_is_taken_is_refused(command: Command, tmp_path: Path) -> None:
    assert command(tmp_path, *words("natural", epochs=1)).returncode == 0
    before = files(tmp_path)
    result = command(tmp_path, *words("natural", epochs=2))
    assert result.returncode == 2
    assert "a model of that name is trained already; use another --name" in result.stderr
    assert files(tmp_path) == before


def test_training_is_the_same_whatever_was_drawn_before(images: tuple[Split, Split], tmp_path: Path) -> None:
    first = run(toy(), images, tmp_path / "first")
    with torch.random.fork_rng():
        torch.manual_seed(99)
        state = torch.random.get_rng_state()
        assert run(toy(), images, tmp_path / "second") == first
        assert torch.equal(torch.random.get_rng_state(), state)
    assert run(replace(toy(), seed=1), images, tmp_path / "third") != first


# Interrupted equals uninterrupted


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_training_stopped_in_an_epoch_continues_to_the_same_bytes(
    command: Command,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    train_epoch = training_module.train_epoch

    def stopping(*arguments: Any) -> float:
        if arguments[5] == epoch:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "train_epoch", stopping)
        assert command(tmp_path, *words()).returncode == 130
    assert not (tmp_path / "checkpoints/digits/half-half.safetensors").exists()
    again = command(tmp_path, *words())
    assert again.returncode == 0, again.stderr
    assert files(tmp_path) == uninterrupted


def test_training_stopped_after_its_last_epoch_continues_to_the_same_bytes(
    command: Command, uninterrupted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_arguments: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "save_state_dict", stopping)
        assert command(tmp_path, *words()).returncode == 130
    assert command(tmp_path, *words()).returncode == 0
    assert files(tmp_path) == uninterrupted


def test_killed_training_continues_to_the_same_bytes(
    command: Command, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    state = tmp_path / "checkpoints/digits/half-half.training.pt"
    with Forked(tmp_path, *words()) as running:
        deadline = time.monotonic() + 60
        while not state.exists() and running.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        running.kill()
        assert running.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert state.exists()
    assert command(tmp_path, *words()).returncode == 0
    assert {name: data for name, data in files(tmp_path).items() if not name.endswith(".tmp")} == uninterrupted


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--seed", "1"], "seed 0, not 1"),
        (["--set", "lr=0.01"], "recipe.lr "),
        (["--set", "weight=0.4"], "params.weight "),
        (["--set", "epochs=4"], "recipe.epochs 1, not 4"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: list[str], named: str
) -> None:
    def stopping(*_arguments: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "save_state_dict", stopping)
        command(tmp_path, *words(epochs=1))
    before = files(tmp_path)
    result = command(tmp_path, *words(epochs=1), *changed)
    assert (result.returncode, result.stdout) == (2, "")
    assert "is of a training with " in result.stderr
    assert named in result.stderr
    assert files(tmp_path) == before


# What it refuses to end with


def spoiled(calls: Iterator[int], bad: int) -> DefenseSpec:
    """Natural training whose loss is NaN at one call."""

    def batch_loss(model: nn.Module, x: Tensor, y: Tensor, _ctx: object) -> Tensor:
        loss = nn.functional.cross_entropy(model(x), y)
        return loss * float("nan") if next(calls) == bad else loss

    return replace(DEFENSES["natural"], batch_loss=batch_loss)


def test_weights_that_are_not_finite_are_not_saved(images: tuple[Split, Split], tmp_path: Path) -> None:
    calls, batches = iter(range(99)), 4

    def batch_loss(model: nn.Module, x: Tensor, y: Tensor, _ctx: object) -> Tensor:
        logits = model(x)
        if next(calls) == 2 * batches - 1:
            logits.register_hook(lambda gradient: gradient * float("nan"))
        return nn.functional.cross_entropy(logits, y)

    with pytest.raises(
        InputError,
        match="epoch 2 ends with weights that are not finite; the weights after epoch 1",
    ):
        run(toy(replace(DEFENSES["natural"], batch_loss=batch_loss)), images, tmp_path / "model")
    assert len((tmp_path / "model.csv").read_text().splitlines()) == 2


def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_keeps_the_last_good_state(
    images: tuple[Split, Split], tmp_path: Path
) -> None:
    batches = 4  # 200 images in batches of 64
    with pytest.raises(
        InputError,
        match="the loss is nan in epoch 2, batch 3; the weights after epoch 1 are in",
    ):
        run(toy(spoiled(iter(range(99)), bad=batches + 2)), images, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.csv",
        "model.last.safetensors",
        "model.training.pt",
    ]
    resumed = run(toy(), images, tmp_path / "model")  # the same training with a loss that is sound
    assert resumed == run(toy(), images, tmp_path / "undisturbed")


def test_a_learning_rate_that_diverges_is_one_line(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, *words("natural", lr="1e30"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "in epoch 1, batch" in result.stderr
    assert "train with a lower lr" in result.stderr


def test_a_model_that_ends_at_chance_is_an_error_and_no_checkpoint(
    images: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "_validate", lambda *_: (10.0, 0.0))
    with pytest.raises(InputError, match=r"the model ends at chance: 10\.0 clean validation accuracy"):
        run(toy(), images, tmp_path / "model")
    assert not list(tmp_path.glob("*.safetensors"))


# What it chooses, and what it sees


@pytest.mark.parametrize(("defense", "best"), [("natural", 3), ("madry", 2)])
def test_the_best_epoch_is_chosen_by_clean_or_robust_validation(
    images: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defense: str, best: int
) -> None:
    for epochs in (4, best):
        scores = iter([(70.0, 10.0), (60.0, 40.0), (90.0, 20.0), (90.0, 20.0)])
        monkeypatch.setattr(training_module, "_validate", lambda *_, scores=scores: next(scores))
        run(
            replace(toy(DEFENSES[defense]), recipe=replace(toy().recipe, epochs=epochs)), images, tmp_path / f"{epochs}"
        )
    chosen = load_state_dict(tmp_path / "4.safetensors")
    expected = load_state_dict(tmp_path / f"{best}.last.safetensors")
    assert all(torch.equal(chosen[name], value) for name, value in expected.items())
    last = load_state_dict(tmp_path / "4.last.safetensors")
    assert not all(torch.equal(chosen[name], value) for name, value in last.items())


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own(images: tuple[Split, Split], tmp_path: Path) -> None:
    seen: list[int] = []

    def watching(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext) -> Tensor:
        seen.extend(ctx.draws.index.tolist())
        return nn.functional.cross_entropy(model(x), y)

    run(toy(replace(DEFENSES["natural"], batch_loss=watching)), images, tmp_path / "model")
    epochs = [seen[start : start + 200] for start in (0, 200, 400)]
    assert [sorted(order) for order in epochs] == 3 * [images[0].index.tolist()]
    assert len({tuple(order) for order in epochs}) == 3


@pytest.mark.parametrize("train_examples", [None, 200])
def test_validation_images_are_training_images_that_are_not_trained_on(
    monkeypatch: pytest.MonkeyPatch, train_examples: int | None
) -> None:
    parts: list[str] = []

    def watching(dataset: str, part: str, **options: Any) -> Split:
        parts.append(part)
        return load(dataset, part, **options)

    monkeypatch.setattr("benchmark.cli.resolve_hardware.load", watching)
    settings = replace(recipe("natural", "digits", "fast"), train_examples=train_examples)
    shared: Any = type(
        "Shared", (), {"data_dir": Path("unused"), "mirror_dir": None, "classes": None, "quiet": True, "seed": 0}
    )
    trained_on, validation = _training_images(SUITES["digits"], settings, shared)
    assert parts == ["train"]
    assert len(validation) == settings.validation
    assert len(trained_on) == (train_examples or 1297 - settings.validation)
    assert not set(trained_on.index.tolist()) & set(validation.index.tolist())


def test_validation_is_the_accuracy_on_clean_and_attacked_images(images: tuple[Split, Split]) -> None:
    torch.manual_seed(0)
    model = build("digits-cnn", 10)
    validation, team = images[1], alone(torch.device("cpu"))
    model.eval()
    clean = 100 * (model(validation.x).argmax(1) == validation.y).double().mean().item()
    got = training_module._validate(toy(), model.train(), validation, team, torch.float32)
    assert got[0] == pytest.approx(clean)
    still = replace(toy(), threat=ThreatModel("Linf", 0.0))
    assert training_module._validate(still, model, validation, alone(torch.device("cpu")), torch.float32) == (
        got[0],
        got[0],
    )


@pytest.mark.parametrize(
    ("defense", "bound", "epsilon"), [("ibp", "intervals", 2e-4), ("convex-bound", "convex", 1e-3)]
)
def test_validation_of_a_certified_defense_is_the_certified_accuracy(
    images: tuple[Split, Split], defense: str, bound: str, epsilon: float
) -> None:
    torch.manual_seed(0)
    model, validation = build("digits-cnn", 10), images[1]
    labels = model(validation.x).argmax(1)
    labels[::4] = (labels[::4] + 1) % 10  # so that an untrained network is right on three of four
    training = replace(toy(DEFENSES[defense]), threat=ThreatModel("Linf", epsilon))
    right, proven = training_module._validate(
        training, model, replace(validation, y=labels), alone(torch.device("cpu")), torch.float32
    )
    assert right == pytest.approx(74)
    assert proven == 2 * int(BOUNDS[bound](model, validation.x, labels, epsilon).sum())
    assert 0 < proven < right


def test_validation_of_smoothing_is_accuracy_under_its_noise(images: tuple[Split, Split]) -> None:
    torch.manual_seed(0)
    model, validation = build("digits-cnn", 10).eval(), images[1]
    right = replace(validation, y=model(validation.x).argmax(1))  # so that an untrained network is right on all
    shown = []
    for sigma in (0.0, 0.02, 50.0):
        training = replace(toy(DEFENSES["smoothing"]), params={"sigma": sigma}, threat=ThreatModel("Linf", 1.0))
        clean, noisy = training_module._validate(training, model, right, alone(torch.device("cpu")), torch.float32)
        assert clean == 100
        shown.append(noisy)
    assert shown[0] == 100  # whatever an attack at epsilon 1 would leave
    assert 100 > shown[1] > shown[2]


def test_the_card_of_a_certified_defense_says_what_is_certified_of_the_test_images(
    command: Command, tmp_path: Path
) -> None:
    result = command(tmp_path, *words("ibp", epochs=40, train_examples=400, lr=0.003))
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / "checkpoints/digits/ibp.json").read_bytes())
    test = load("digits", "test", data_dir=Path("unused"))
    model = load_model(read_card(tmp_path / "checkpoints/digits/ibp.json"), tmp_path / "checkpoints", classes=10)
    proven = BOUNDS["intervals"](model, test.x, test.y, 0.2).double().mean().item()
    expected = {"bound": "intervals", "epsilon": 0.2, "accuracy": round(100 * proven, 4), "n": 500}
    assert card["training"]["certified"] == expected
    assert proven > 0


# Augmentation


def with_pass_counts(n: int, seed: int = 0) -> tuple[Tensor, Draws]:
    x = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return x, Draws.start(seed, torch.arange(n))


def test_augmentation_is_a_crop_of_the_padded_image_perhaps_flipped_and_every_one_occurs() -> None:
    x, draws = with_pass_counts(600)
    before, y = x.clone(), augment(x, draws)
    assert torch.equal(x, before)
    assert y.shape == x.shape
    padded = nn.functional.pad(x, [2] * 4)
    crops = [padded[:, :, top : top + 16, left : left + 16] for top in range(5) for left in range(5)]
    candidates = torch.stack([image for crop in crops for image in (crop, crop.flip(3))])
    matches = (candidates == y).flatten(2).all(2)
    assert (matches.sum(0) == 1).all()
    counts = matches.sum(1)
    assert (counts > 0).all()  # offset (2, 2) without a flip, the image itself, among them
    assert counts.max() < 40  # of 12 expected


def test_augmentation_belongs_to_the_image_and_not_to_its_place() -> None:
    x, draws = with_pass_counts(64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))[:20]
    assert torch.equal(augment(x[order], Draws.start(0, draws.index[order])), augment(x, draws)[order])


def test_augmentation_differs_between_epochs_and_seeds() -> None:
    x, draws = with_pass_counts(64)
    epoch = Draws.start(0, draws.index, torch.ones_like(draws.index))
    assert not torch.equal(augment(x, draws), augment(x, epoch))
    assert not torch.equal(augment(x, draws), augment(x, with_pass_counts(64, seed=1)[1]))


# Settings


def test_learning_rates_follow_the_milestones() -> None:
    chosen = Recipe("digits-cnn", 10, 64, "sgd", 0.1, milestones=[(4, 0.01), (8, 0.001)])
    assert [chosen.lr_at(epoch) for epoch in (1, 3, 4, 7, 8, 10)] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


def test_no_two_epochs_or_seeds_share_a_seed() -> None:
    assert len({hash_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


def test_overrides_are_read_by_the_type_of_the_setting() -> None:
    changed = with_overrides(
        recipe("natural", "digits", "fast"),
        {
            "epochs": "5",
            "lr": "1e-2",
            "epsilon": "0.1",
            "train_examples": "7",
            "optimizer": "sgd",
            "augmentation": "none",
        },
    )
    assert (changed.epochs, changed.lr, changed.epsilon) == (5, 0.01, 0.1)
    assert (changed.train_examples, changed.optimizer, changed.augmentation) == (7, "sgd", "none")
    assert with_overrides(changed, {"epsilon": "8/255"}).epsilon == 8 / 255


@pytest.mark.parametrize("key", RECIPES, ids=" ".join)
def test_every_recipe_names_a_known_defense_dataset_network_and_optimizer(key: tuple[str, str, str]) -> None:
    defense, dataset, _ = key
    chosen = RECIPES[key]
    assert defense == "*" or defense in DEFENSES
    assert dataset in {suite.dataset for suite in SUITES.values()}
    find(chosen.architecture)
    assert training_module.optimizer_of(chosen, nn.Linear(1, 1))
    assert all(1 < epoch <= chosen.epochs for epoch, _ in chosen.milestones)


def test_a_dataset_without_a_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="no recipe 'slow' for trades on mnist; known: fast, paper"):
        recipe("trades", "mnist", "slow")


def test_a_recipe_of_another_dataset_names_those_that_it_is_for() -> None:
    with pytest.raises(InputError, match="no recipe 'cpu' for madry on digits; known: fast; 'cpu' is for cifar10"):
        recipe("madry", "digits", "cpu")


def test_a_recipe_with_an_epsilon_of_linf_is_refused_for_an_l2_suite_until_its_size_is_given() -> None:
    with pytest.raises(InputError, match=r"against Linf of size 0\.03137, and suite cifar10-l2 is of L2"):
        training_settings(DEFENSES["madry"], SUITES["cifar10-l2"], "cpu", [])
    _, settings = training_settings(DEFENSES["madry"], SUITES["cifar10-l2"], "cpu", ["epsilon=0.5"])
    assert settings.epsilon == 0.5


@pytest.mark.parametrize("defense", DEFENSES)
def test_recipe_cpu_differs_between_defenses_in_their_own_terms_alone(defense: str) -> None:
    base, own = recipe("natural", "cifar10", "cpu"), recipe(defense, "cifar10", "cpu")
    assert own.epochs * own.replays == base.epochs
    assert own.epsilon == SUITES["cifar10"].threat.epsilon
    assert own.architecture.removesuffix("+mlp") == base.architecture
    told, plain = (json.loads(json.dumps(chosen.settings())) for chosen in (own, base))
    terms = ("epochs", "replays", "architecture", "param_schedule")
    assert {k: v for k, v in told.items() if k not in terms} == {k: v for k, v in plain.items() if k not in terms}
    rates = [own.lr_at(epoch, 0.0) for epoch in range(1, own.epochs + 2)]
    assert (rates[0], rates[-1]) == (0, 0)
    assert max(rates) <= own.lr
    assert own.lr_at(1, own.peak * own.epochs) == pytest.approx(own.lr)


def test_the_memory_format_reaches_the_network_and_is_kept_out_of_older_settings(
    images: tuple[Split, Split], tmp_path: Path
) -> None:
    seen: list[bool] = []

    def watching(model: nn.Module, *rest: Tensor | TrainingContext) -> Tensor:
        kernels = [weight for weight in model.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
        seen.append(all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels))
        return DEFENSES["natural"].batch_loss(model, *rest)

    defense = replace(DEFENSES["natural"], batch_loss=watching)
    for name, told in (("last", {"memory_format": "channels-last"}), ("first", {})):
        training = toy(defense, **told)
        assert training.recipe.settings().get("memory_format") == told.get("memory_format")
        run(training, images, tmp_path / name)
    half = len(seen) // 2
    assert all(seen[:half])
    assert not any(seen[half:])
    first, last = (load_state_dict(tmp_path / f"{name}.last.safetensors") for name in ("first", "last"))
    for key, weights in first.items():
        torch.testing.assert_close(last[key], weights, rtol=1e-2, atol=1e-3)


def test_epsilon_warms_up_batch_by_batch() -> None:
    slow = replace(recipe("madry", "digits", "fast"), warm_up=2.0)
    assert [slow.epsilon_share_at(1, 0.0), slow.epsilon_share_at(1, 0.5), slow.epsilon_share_at(2, 0.5)] == [
        0,
        0.25,
        0.75,
    ]
    assert slow.epsilon_share_at(3, 0.0) == slow.epsilon_share_at(9, 0.9) == 1.0
    assert recipe("madry", "digits", "fast").epsilon_share_at(1, 0.0) == 1.0


def test_the_first_batch_of_a_warm_up_is_natural_training(images: tuple[Split, Split], tmp_path: Path) -> None:
    """One batch in all: against an epsilon of nothing, Madry training takes the step that natural training takes."""
    once = replace(recipe("madry", "digits", "fast"), epochs=1, batch_size=10_000, optimizer="sgd")
    trained = {}
    for name, warm_up in (("natural", 0.0), ("madry", 1.0)):
        training = Training(DEFENSES[name], {}, replace(once, warm_up=warm_up), ThreatModel("Linf", 0.2), 0, "digest")
        train(training, *images, tmp_path / name, team=alone(torch.device("cpu")), quiet=True)
        trained[name] = load_state_dict(tmp_path / f"{name}.last.safetensors")
    for key, weights in trained["natural"].items():
        torch.testing.assert_close(trained["madry"][key], weights)


def test_two_processes_train_the_model_that_one_trains(command: Command, process: Command, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="training in several processes needs lightning-fabric")
    trained = []
    for workers, start in (("1", command), ("2", process)):
        folder = tmp_path / workers
        folder.mkdir()
        settings = words("natural", epochs=2, batch_size=47, optimizer="sgd", lr=0.1)
        result = start(folder, *settings, "--workers", workers)
        assert result.returncode == 0, result.stderr
        trained.append(load_state_dict(folder / "checkpoints/digits/natural.last.safetensors"))
    for name, weights in trained[0].items():
        torch.testing.assert_close(trained[1][name], weights, rtol=1e-3, atol=1e-5)


def test_what_stops_several_processes_is_told_by_one(process: Command, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="training in several processes needs lightning-fabric")
    result = process(tmp_path, *words("natural", epochs=1, lr=1e30), "--workers", "2")
    assert result.returncode == 2
    assert result.stderr.count("error: the loss is") == 1, result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_leader_that_is_killed_early_leaves_no_worker_behind(tmp_path: Path) -> None:
    """Its worker would wait half an hour for it to meet."""
    pytest.importorskip("lightning_fabric", reason="training in several processes needs lightning-fabric")
    arguments = [sys.executable, str(ROOT / "run_benchmark.py"), *words("natural"), "--workers", "2"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL) as leader:
        wait_until(lambda: bool(started_by(leader.pid)))
        workers = started_by(leader.pid)
        leader.kill()
        assert leader.wait() == -signal.SIGKILL, "it ended before it could be killed"
    wait_until(lambda: not any(runs(worker) for worker in workers))


def runs(process: str) -> bool:
    """Also where nobody buries the dead."""
    return read(f"/proc/{process}/stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])


def started_by(leader: int) -> list[str]:
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    return [child for child in children if b"run_benchmark" in read(f"/proc/{child}/cmdline")]


def read(path: str) -> bytes:
    """What a process says of itself; nothing where it is gone."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_the_parts_of_a_team_are_the_batch_and_their_weights_add_up(n: int) -> None:
    places, device = torch.arange(n), torch.device("cpu")
    teams = [Team(rank, 3, device, lambda tensor: tensor, lambda: None) for rank in range(3)]
    mean = sum(team.weight(places) * team.part(places).double().mean() for team in teams)
    assert mean == pytest.approx(places.double().mean())
    assert {int(place) for team in teams for place in team.part(places)} == set(range(n))
