"""Trainings that begin with another model: what each part is trained on, and what is refused."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.cli.resolve_hardware import choose_images
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset, holdout
from benchmark.training.first_stage import OWN_POOL, FirstStageRun, prepare_first_stage
from model_zoo.architectures.head import MLPHead, features_and_logits, head_of
from model_zoo.architectures.registry import ARCHITECTURES, build
from model_zoo.card import read_card
from model_zoo.defenses.registry import DEFENSES, FirstStage
from model_zoo.load import load_model
from model_zoo.registry import SHIPPED
from model_zoo.training import loop as training_module
from model_zoo.training.process_group import alone
from model_zoo.training.recipe import Recipe
from model_zoo.training.source import take_features
from model_zoo.weights.checkpoint import load_state_dict, save_state_dict

Command = Callable[..., subprocess.CompletedProcess[str]]
NATURAL = str(SHIPPED / "digits/natural.safetensors")
TINY = ["epochs=3", "batch_size=32", "lr=0.003", "train_examples=400", "validation=100"]
NEEDED = {
    "transfer-mlp": ["architecture=digits-cnn+mlp"],
    "ibp": ["epochs=12", "epsilon=0.01"],  # a proof takes longer to learn
    "convex-bound": ["epsilon=0.05", "train_examples=100", "validation=20"],  # which takes long for each image
}
STAGED = [name for name, spec in DEFENSES.items() if spec.first is not None]


def words(defense: str, *settings: str) -> list[str]:
    staged = ["source_epochs=3"] if defense in STAGED and not any(s.startswith("source=") for s in settings) else []
    attacked = ["inner_steps=2"] if DEFENSES[defense].bound is None else []
    pairs = [*TINY, *attacked, *staged, *settings]
    return ["train", "--defense", defense, "--quiet", *(word for pair in pairs for word in ("--set", pair))]


def files(folder: Path) -> dict[str, Any]:
    """What a training left, byte for byte; of the card all but the seconds, which no two trainings share."""
    kept: dict[str, Any] = {path.name: path.read_bytes() for path in sorted((folder / "checkpoints/digits").iterdir())}
    for name in [name for name in kept if name.endswith(".json")]:
        kept[name] = json.loads(kept[name])
        assert kept[name]["training"].pop("seconds") >= 0
    return kept


# All of them


@pytest.mark.parametrize("defense", DEFENSES)
def test_every_defense_trains_by_one_command_into_a_model_that_can_be_loaded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defense: str
) -> None:
    to_certify = "benchmark.cli.train.choose_images"
    monkeypatch.setattr(to_certify, lambda *of: balanced_subset(choose_images(*of), 30, seed=0))
    result = command(tmp_path, *words(defense, *NEEDED.get(defense, ())), "--name", "mine")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "checkpoints"
    spec = read_card(folder / "digits/mine.json")
    assert spec.defense == defense
    split = load("digits", "test", data_dir=Path("unused"))
    model = load_model(spec, folder, classes=10)
    assert (model(split.x).argmax(1) == split.y).double().mean() > 0.11
    assert not list(folder.rglob("*.training.pt"))


# What each part sees


@pytest.fixture(scope="module")
def images() -> tuple[Split, Split]:
    return holdout(load("digits", "train", data_dir=Path("unused")), 200, seed=0)


def settings(**changes: Any) -> Recipe:
    return replace(Recipe("digits-cnn", 1, 64, "adam", 1e-3, validation=200, source=NATURAL), **changes)


def prepared(defense: str, images: tuple[Split, Split], stem: Path, **changes: Any) -> FirstStageRun:
    return prepare_first_stage(
        DEFENSES[defense],
        settings(**changes),
        "fast",
        ThreatModel("Linf", 0.2),
        *images,
        stem,
        team=alone(torch.device("cpu")),
        precision=torch.float32,
        seed=0,
        quiet=True,
    )


def test_the_withheld_images_are_labelled_by_the_teacher_and_not_by_the_data(
    images: tuple[Split, Split], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save_state_dict(build("digits-cnn").state_dict(), tmp_path / "untrained.safetensors", {})
    before = prepared("rst", images, tmp_path / "m", withheld=0.25, source=str(tmp_path / "untrained.safetensors"))
    assert before.pool is not None
    assert before.model is not None
    assert len(before.pool) == round(0.25 * len(images[0]))
    assert sorted([*before.images.index.tolist(), *before.pool.index.tolist()]) == images[0].index.tolist()
    assert torch.equal(before.pool.y, before.model(before.pool.x).argmax(1))
    true = dict(zip(images[0].index.tolist(), images[0].y.tolist(), strict=True))
    assert [true[i] for i in before.pool.index.tolist()] != before.pool.y.tolist()


@pytest.mark.parametrize(
    ("defense", "first", "part"),
    [("rst", "natural", "kept"), ("fine-tuning", "madry", "withheld"), ("cascade", "mixed", "all")],
)
def test_the_first_stage_is_trained_on_its_own_images(
    images: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defense: str, first: str, part: str
) -> None:
    seen = []

    def watching(training: Any, trained_on: Split, _validation: Split, stem: Path, **_options: object) -> None:
        seen.append((training.defense.name, trained_on.index.tolist()))
        save_state_dict(load_state_dict(Path(NATURAL)), stem.with_suffix(".safetensors"), {})

    monkeypatch.setattr("benchmark.training.first_stage.train", watching)
    before = prepared(defense, images, tmp_path / "m", source="")
    withheld = sorted(set(images[0].index.tolist()) - set(before.images.index.tolist()))
    expected = {"kept": before.images.index.tolist(), "withheld": withheld, "all": images[0].index.tolist()}
    assert seen == [(first, expected[part])]
    assert bool(withheld) is (part != "all")


def test_fine_tuning_starts_from_the_source_but_for_the_head(images: tuple[Split, Split], tmp_path: Path) -> None:
    before = prepared("fine-tuning", images, tmp_path / "m")
    model = build("digits-cnn")
    old = {name: value.clone() for name, value in model.state_dict().items()}
    assert before.model is not None
    take_features(model, before.model)
    source = load_state_dict(Path(NATURAL))
    for name, value in model.state_dict().items():
        assert torch.equal(value, old[name] if name.startswith("fc2.") else source[name])


def test_a_source_of_other_classes_gives_its_features(images: tuple[Split, Split], tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_state_dict(build("digits-cnn", 7).state_dict(), tmp_path / "seven.safetensors", {})
    assert prepared("transfer-lwf", images, tmp_path / "m", source=str(tmp_path / "seven.safetensors")).model
    with pytest.raises(InputError, match="of a DigitsCNN for 10 classes, got those for 7"):
        prepared("cascade", images, tmp_path / "m", source=str(tmp_path / "seven.safetensors"))


@pytest.mark.parametrize("kind", ["uint8", "float", "folder"])
def test_a_pool_of_the_user_s_is_read_with_indices_of_its_own(
    images: tuple[Split, Split], tmp_path: Path, kind: str
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
    path = tmp_path / "pool.npy"
    if kind == "folder":
        path = tmp_path / "pool"
        path.mkdir()
        for number, image in enumerate(array):
            Image.fromarray(image[0]).save(path / f"{number:03}.png")
    else:
        np.save(path, array if kind == "uint8" else array.astype(np.float32) / 255)
    before = prepared("rst", images, tmp_path / "m", pool=str(path))
    assert before.pool is not None
    torch.testing.assert_close(before.pool.x, torch.from_numpy(array).float() / 255)
    assert before.pool.index.tolist() == list(range(OWN_POOL, OWN_POOL + 12))
    assert len(before.images) == len(images[0])


def test_the_identity_of_a_training_knows_pool_and_source(command: Command, tmp_path: Path) -> None:
    assert command(tmp_path, *words("self-training", f"source={NATURAL}"), "--name", "a").returncode == 0
    record = json.loads((tmp_path / "checkpoints/digits/a.json").read_text())["training"]["settings"]
    assert len(record["images"].split()) == 3
    assert record["source"] == read_card(SHIPPED / "digits/natural.json").sha256
    assert NATURAL not in json.dumps(record)


# Interrupted equals uninterrupted


@pytest.mark.parametrize("defense", ["rst", "free", "fine-tuning"])
def test_an_interrupted_training_with_all_that_is_carried_ends_with_the_same_bytes(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defense: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert command(whole, *words(defense, "replays=2")).returncode == 0
    train_epoch = training_module.train_epoch
    for allowed in (1, 3):  # epochs: stopped in the first stage, if there is one, and in the training itself
        calls = iter(range(99))

        def stopping(*arguments: Any, calls: Any = calls, allowed: int = allowed) -> float:
            if next(calls) == allowed:
                raise KeyboardInterrupt
            return train_epoch(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(training_module, "train_epoch", stopping)
            command(parts, *words(defense, "replays=2"))
    assert (parts / "checkpoints").exists()
    command(parts, *words(defense, "replays=2"))
    assert files(parts) == files(whole)


# Heads


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith("wrn")])
def test_every_network_has_a_head_that_reads_its_features(name: str) -> None:
    spec = ARCHITECTURES[name]
    for model in (build(name), build(name + "+mlp")):
        model.eval()
        x = torch.rand(2, *spec.input_shape)
        head = head_of(model)[1]
        features, logits = features_and_logits(model, x)
        assert torch.equal(head(features), logits)
        assert torch.equal(model(x), logits)
        assert isinstance(head, MLPHead) is (head_of(build(name))[0] + ".0" in dict(model.named_modules()))


def test_a_head_may_be_cut_off_from_its_features() -> None:
    model = build("digits-cnn+mlp").eval()
    features_and_logits(model, torch.rand(2, 1, 8, 8), train_features=False)[1].sum().backward()
    reached = [name for name, value in model.named_parameters() if value.grad is not None]
    assert reached == [f"fc2.{name}" for name in ("0.weight", "0.bias", "3.weight", "3.bias")]


# What is refused


@pytest.mark.parametrize(
    ("defense", "setting", "message"),
    [
        (
            "madry",
            "architecture=small-cnn",
            "architecture small-cnn expects images of shape (1, 28, 28), got (1, 8, 8)",
        ),
        ("madry", f"source={NATURAL}", "--set source is for defenses with a first stage; madry has none"),
        ("madry", "withheld=0.1", "--set withheld is for defenses with a first stage; madry has none"),
        ("cascade", "pool=x.npy", "--set pool is for defenses that use unlabelled images; cascade does not"),
        ("rst", "pool=x.npy", "--set pool: expected a folder of PNG images or a .npy file"),
        ("rst", "pool=absurd.npy", "--set pool: expected a folder of PNG images or a .npy file"),
        ("rst", "pool=objects.npy", "--set pool: expected a folder of PNG images or a .npy file"),
        ("rst", "pool=words.npy", "--set pool: expected an array of numbers"),
        ("rst", "pool=wrong.npy", "expected images of shape ('N', 1, 8, 8), got (5, 3, 8, 8)"),
        ("rst", "pool=bright.npy", "--set pool: expected pixels in [0, 1]"),
        ("rst", "pool=empty", "--set pool: expected PNG images of one shape below empty, got 0"),
        ("rst", "source=nowhere.safetensors", "expected a checkpoint at"),
        ("fine-tuning", "source=other.safetensors", "other.safetensors: expected the weights of a DigitsCNN"),
        ("rst", "withheld=0", "withheld must be a fraction between 0 and 1, got 0.0"),
        ("rst", "withheld=1e-9", "a holdout must leave images on both sides"),
        ("fast", "schedule=linear", "schedule must be one of milestones, cosine, cyclic, got 'linear'"),
        (
            "cascade",
            "withheld=0.5",
            "--set withheld has no effect: the first stage of cascade is trained on all images",
        ),
        ("natural", "warm_up=2", "--set warm_up has no effect: natural trains against no epsilon that could grow"),
        ("ibp", "inner_steps=10", "--set inner_steps has no effect: ibp trains by a bound, without an attack"),
        ("madry", "peak=0.5", "--set peak has no effect without --set schedule=cyclic"),
        ("free", "replays=0", "replays must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    command: Command, tmp_path: Path, defense: str, setting: str, message: str
) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((5, 3, 8, 8), dtype=np.uint8))
    np.save(tmp_path / "bright.npy", np.full((5, 1, 8, 8), 2.0, dtype=np.float32))
    whole = (tmp_path / "bright.npy").read_bytes()
    (tmp_path / "absurd.npy").write_bytes(whole.replace(b"(5, 1, 8, 8), ", b"(9999999999,),"))
    assert (tmp_path / "absurd.npy").read_bytes() != whole
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "words.npy", np.array(["one"]))
    (tmp_path / "empty").mkdir()
    save_state_dict(build("strided-cnn").state_dict(), tmp_path / "other.safetensors", {})
    result = command(tmp_path, *words(defense, setting))
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("defense", "settings", "message"),
    [
        ("rst", ["pool=mine.npy", "withheld=0.2"], "--set withheld has no effect beside --set pool"),
        ("fine-tuning", [f"source={NATURAL}", "withheld=0.2"], "--set withheld has no effect beside --set source"),
        ("rst", [f"source={NATURAL}", "source_epochs=2"], "--set source_epochs has no effect beside --set source"),
    ],
)
def test_a_setting_that_another_one_makes_void_is_refused(
    command: Command, tmp_path: Path, defense: str, settings: list[str], message: str
) -> None:
    result = command(tmp_path, "train", "--defense", defense, *(word for pair in settings for word in ("--set", pair)))
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_first_stage_has_one_of_the_known_roles() -> None:
    with pytest.raises(InputError, match="the role of a first stage is one of labels-pool"):
        FirstStage(defense="natural", role="watches")
    assert isinstance(head_of(nn.Sequential(nn.Linear(2, 3)))[1], nn.Linear)


def test_a_first_stage_never_overwrites_a_trained_model(command: Command, tmp_path: Path) -> None:
    taken = tmp_path / "checkpoints/digits/mine-first.json"
    taken.parent.mkdir(parents=True)
    taken.write_text("the card of a trained model")
    result = command(tmp_path, *words("rst", "epochs=1"), "--name", "mine")
    assert result.returncode == 2
    assert "mine-first: a trained model has the name that the first stage takes" in result.stderr
    assert [path.name for path in taken.parent.iterdir()] == [taken.name]
