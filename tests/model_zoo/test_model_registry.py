"""Registered models, shipped checkpoints and their cards, and the identity of a user's own model."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks.errors import InputError
from benchmark.data.datasets import DATASETS, load
from benchmark.data.split import balanced_subset
from benchmark.suites.registry import SUITES
from model_zoo.architectures.registry import find
from model_zoo.card import card, read_card
from model_zoo.files.atomic import sha256_of
from model_zoo.load import external_model, find_checkpoint, load_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS, SHIPPED, distinct, model_spec, models_of
from model_zoo.weights.checkpoint import load_state_dict, save_state_dict

NOWHERE = Path("no checkpoints of the user's")
SHIPPED_MODELS = [spec for spec in MODELS if (SHIPPED / spec.checkpoint).exists()]
shipped = pytest.mark.parametrize("spec", SHIPPED_MODELS, ids=lambda spec: f"{spec.dataset}/{spec.name}")
every_model = pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
CODE = "from model_zoo.architectures.digits_cnn import DigitsCNN\ndef factory():\n    return DigitsCNN()\n"


# Shipped


def test_every_digits_model_is_shipped_and_nothing_unregistered_is() -> None:
    digits = [spec for spec in MODELS if spec.dataset == "digits"]
    assert digits == [spec for spec in SHIPPED_MODELS if spec.dataset == "digits"]
    assert sorted(SHIPPED.rglob("*.safetensors")) == sorted(SHIPPED / spec.checkpoint for spec in SHIPPED_MODELS)


@shipped
def test_a_shipped_checkpoint_is_at_most_a_megabyte_and_a_half(spec: ModelSpec) -> None:
    assert (SHIPPED / spec.checkpoint).stat().st_size <= 1_500_000


@shipped
def test_a_shipped_checkpoint_is_the_registered_one(spec: ModelSpec) -> None:
    assert sha256_of(SHIPPED / spec.checkpoint) == spec.sha256
    assert find_checkpoint(spec, NOWHERE) == SHIPPED / spec.checkpoint


@shipped
def test_a_shipped_model_has_a_card_that_names_it_and_the_command_that_trains_it(spec: ModelSpec) -> None:
    path = (SHIPPED / spec.checkpoint).with_suffix(".json")
    described, record = read_card(path), json.loads(path.read_text())["training"]
    for name in ("name", "sha256", "architecture", "defense", "dataset", "checkpoint"):
        assert getattr(described, name) == getattr(spec, name), name
    assert record["command"].startswith(
        f"python run_benchmark.py train --defense {spec.defense} --suite {spec.suites[0]}"
    )
    assert f"--name {spec.name} " in record["command"]
    assert path.with_suffix(".csv").is_file()


@shipped
def test_a_shipped_model_classifies_most_of_the_test_images(spec: ModelSpec, request: pytest.FixtureRequest) -> None:
    digits = spec.dataset == "digits"
    split = load("digits", "test", data_dir=Path("unused")) if digits else request.getfixturevalue(spec.dataset)
    split = balanced_subset(split, 1000, seed=0)
    model = load_model(spec, NOWHERE, classes=10)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    least = {"digits": 0.85, "mnist": 0.85, "cifar10": 0.4}  # a tiny network, trained in minutes on a CPU
    accuracy = (torch.cat([model(x).argmax(1) for x in split.x.split(1000)]) == split.y).double().mean()
    assert accuracy > (0.75 if spec.defense == "projection" else least[spec.dataset])  # its decoder loses some images


# Registered


@every_model
def test_a_registered_model_has_a_known_architecture_dataset_and_suites(spec: ModelSpec) -> None:
    assert find(spec.architecture).input_shape == DATASETS[spec.dataset].shape
    assert {SUITES[suite].dataset for suite in spec.suites} == {spec.dataset}
    assert len(spec.sha256) == 64 or (spec.sha256 == "" and spec.url)
    assert spec.url or spec in SHIPPED_MODELS


@pytest.mark.parametrize("suite", SUITES)
def test_names_are_unique_within_a_suite(suite: str) -> None:
    names = [spec.name for spec in MODELS if suite in spec.suites]
    assert len(names) == len(set(names))
    assert list(models_of(suite, NOWHERE)) == names


def test_an_unknown_model_answers_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown model of suite digits 'trades-b7'; did you mean 'trades-b[16]'\?"):
        model_spec("trades-b7", "digits", NOWHERE)


def test_a_missing_checkpoint_says_where_to_put_it_and_where_to_get_it(tmp_path: Path) -> None:
    spec = next(spec for spec in MODELS if spec.name == "fat-zhang2020")
    with pytest.raises(InputError) as caught:
        find_checkpoint(spec, tmp_path)
    assert str(tmp_path / spec.checkpoint) in str(caught.value)
    assert spec.url in str(caught.value)


def test_a_suite_has_no_two_models_of_one_name() -> None:
    spec = MODELS[0]
    elsewhere = replace(spec, suites=("elsewhere",))
    assert distinct([spec, elsewhere]) == [spec, elsewhere]
    with pytest.raises(InputError, match=f"model of suite {spec.suites[0]} {spec.name!r} is registered twice"):
        distinct([spec, elsewhere, replace(spec, sha256="0" * 64)])


# Trained by the user


def trained(folder: Path, name: str, suite: str = "digits") -> ModelSpec:
    """A model of the user's in a checkpoint folder, with its card; its weights are those of madry."""
    path = folder / suite / f"{name}.safetensors"
    sha256 = save_state_dict(load_state_dict(SHIPPED / "digits/madry.safetensors"), path, {"name": name})
    spec = ModelSpec(
        name,
        suites=(suite,),
        dataset="digits",
        architecture="digits-cnn",
        defense="madry",
        checkpoint=f"{suite}/{name}.safetensors",
        sha256=sha256,
    )
    path.with_suffix(".json").write_bytes(card(spec, {"command": "python run_benchmark.py train"}))
    return spec


def test_a_card_is_read_back_unchanged(tmp_path: Path) -> None:
    spec = trained(tmp_path, "mine")
    assert read_card(tmp_path / "digits/mine.json") == spec
    assert models_of("digits", tmp_path)["mine"] == spec
    assert "mine" not in models_of("digits-l2", tmp_path)


def test_a_users_model_stands_in_for_a_shipped_one_of_its_name(tmp_path: Path) -> None:
    spec = trained(tmp_path, "natural")
    assert model_spec("natural", "digits", tmp_path) == spec
    assert list(models_of("digits", tmp_path)) == list(models_of("digits", NOWHERE))  # in its place
    assert find_checkpoint(spec, tmp_path) == tmp_path / "digits/natural.safetensors"
    model = load_model(spec, tmp_path, classes=10)
    madry = load_state_dict(SHIPPED / "digits/madry.safetensors")
    assert torch.equal(model.state_dict()["fc2.bias"], madry["fc2.bias"])


def test_a_users_model_does_not_hide_the_shipped_one_from_another_suite(tmp_path: Path) -> None:
    trained(tmp_path, "natural")
    spec = model_spec("natural", "digits-l2", tmp_path)
    assert find_checkpoint(spec, tmp_path) == SHIPPED / "digits/natural.safetensors"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"model": {}}', '{"model": {"suites": [], "name": "x"}}', "\ufffe"]
)
def test_a_file_that_is_no_card_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_bytes(content.encode("utf-16" if content == "\ufffe" else "utf-8"))
    with pytest.raises(InputError, match="expected the card of a trained model") as caught:
        read_card(tmp_path / "mine.json")
    assert str(tmp_path / "mine.json") in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"size": "12"}, {"size": 1.5}, {"size": -5}, {"size": True}, {"suites": "digits"}, {"checkpoint": ""}]
)
def test_a_card_with_a_field_of_another_kind_is_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    trained(tmp_path, "mine")
    path = tmp_path / "digits/mine.json"
    content = json.loads(path.read_text())
    content["model"].update(fields)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected the card of a trained model"):
        read_card(path)


def test_a_checkpoint_that_was_changed_after_training_is_refused(tmp_path: Path) -> None:
    spec = trained(tmp_path, "mine")
    shutil.copy(SHIPPED / "digits/natural.safetensors", tmp_path / spec.checkpoint)
    with pytest.raises(InputError, match=f"expected sha256 {spec.sha256}"):
        load_model(spec, tmp_path, classes=10)


# The user's own


def external(folder: Path, code: str = CODE, *, weights: str | None = "natural", factory: str = "factory") -> ModelSpec:
    """The spec of a model whose code and weights lie in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(code)
    checkpoint = None
    if weights is not None:
        checkpoint = folder / "weights.safetensors"
        shutil.copy(SHIPPED / f"digits/{weights}.safetensors", checkpoint)
    own = f"{folder / 'model.py'}:{factory}"
    return external_model(own, checkpoint, dataset="digits", suite="digits", shape=DATASETS["digits"].shape)


def test_the_identity_of_ones_own_model_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    assert external(tmp_path / "here").identity == external(tmp_path / "there").identity


def test_other_code_is_another_model(tmp_path: Path) -> None:
    changed = CODE.replace("DigitsCNN()", "DigitsCNN(num_classes=10)")
    assert external(tmp_path / "here").identity != external(tmp_path / "there", changed).identity


def test_another_factory_in_the_same_file_is_another_model(tmp_path: Path) -> None:
    code = CODE + "def second():\n    return DigitsCNN().double().float()\n"
    first, second = (external(tmp_path / name, code, factory=name) for name in ("factory", "second"))
    assert first.identity != second.identity
    assert (first.name, second.name) == ("factory", "second")


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    assert external(tmp_path / "here").identity != external(tmp_path / "there", weights="madry").identity


def test_weights_that_the_factory_makes_itself_are_part_of_the_identity(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom pathlib import Path\nfrom model_zoo.architectures.digits_cnn import DigitsCNN\n"
        "def factory():\n    torch.manual_seed(int(Path(__file__).with_name('seed').read_text()))\n"
        "    return DigitsCNN()\n"
    )
    specs = []
    with torch.random.fork_rng():
        for name, seed in (("one", "0"), ("same", "0"), ("other", "1")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "seed").write_text(seed)
            specs.append(external(tmp_path / name, code, weights=None))
    one, same, other = (spec.identity for spec in specs)
    assert one == same
    assert one != other


def test_partly_applied_networks_are_told_apart_by_the_file_that_applies_them(tmp_path: Path) -> None:
    imports = "from functools import partial\nfrom model_zoo.architectures.digits_cnn import DigitsCNN\n"
    code = imports + "factory = partial(DigitsCNN, 10)\n"
    first = external(tmp_path / "here", code)
    assert first.identity == external(tmp_path / "there", code).identity
    assert first.identity != external(tmp_path / "elsewhere", code + "# changed\n").identity


def test_ones_own_model_is_loaded_with_its_weights_frozen_and_in_eval_mode(tmp_path: Path) -> None:
    model = load_model(external(tmp_path / "here", weights="madry"), NOWHERE, classes=10)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = load_state_dict(SHIPPED / "digits/madry.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_file_of_ones_own_may_import_its_neighbours_and_leaves_the_search_path_alone(tmp_path: Path) -> None:
    before = list(sys.path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/neighbour_of_mine.py").write_text(CODE)
    external(tmp_path / "here", "from neighbour_of_mine import factory\n")
    assert sys.path == before


NOISY = """
import random
import numpy as np
import torch
from torch import nn
from model_zoo.architectures.digits_cnn import DigitsCNN

class Noisy(DigitsCNN):
    def forward(self, x):
        return super().forward(x + {noise})

def factory():
    return Noisy()
"""


@pytest.mark.parametrize(
    ("noise", "is_random"),
    [
        ("0.01 * torch.randn_like(x)", True),
        ("0.01 * torch.from_numpy(np.random.randn(*x.shape)).float()", True),
        ("0.01 * random.random()", True),
        ("0.01", False),
        ("torch.zeros(0, 9)", False),  # cannot take the images: another line says so
    ],
)
def test_a_model_of_ones_own_that_answers_at_random_is_found(tmp_path: Path, noise: str, is_random: bool) -> None:
    assert external(tmp_path / "here", NOISY.format(noise=noise)).randomized is is_random


def test_a_card_may_say_that_a_model_answers_at_random(tmp_path: Path) -> None:
    spec = replace(next(iter(MODELS)), randomized=True)
    path = tmp_path / "card.json"
    path.write_bytes(card(spec, {}))
    assert read_card(path).randomized is True
    assert b"randomized" not in card(replace(spec, randomized=False), {})
    path.write_bytes(path.read_bytes().replace(b"true", b'"yes"'))
    with pytest.raises(InputError, match="randomized that is neither true nor false: 'yes'"):
        read_card(path)
