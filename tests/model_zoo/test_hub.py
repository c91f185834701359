"""Models of torchvision, timm and the hub: the same logits as from whoever publishes them, or one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from attacks.errors import InputError
from attacks.models.normalisation import USUAL, Normalisation
from model_zoo import hub
from model_zoo.about import About
from model_zoo.crop import Crop
from model_zoo.hub import about_published, is_published, load_published

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is downloaded, and no cache of this machine is read."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))


def logits(model: torch.nn.Module, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model.eval()(x)
    return answer


# Names


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("torchvision:resnet18", True),
        ("timm:resnet18.a1_in1k", True),
        ("hf:timm/resnet18.a1_in1k", True),
        ("hf:", False),
        ("net.py:make", False),
        ("package.module:make", False),
    ],
)
def test_names_of_published_models(name: str, answer: bool) -> None:
    assert is_published(name) is answer


# torchvision


def test_a_model_of_torchvision_is_theirs_with_its_normalisation_and_crop(tmp_path: Path) -> None:
    theirs = torchvision.models.squeezenet1_1()
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    file = tmp_path / "torch/hub/checkpoints" / weights.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), file)
    name = "torchvision:squeezenet1_1:IMAGENET1K_V1"
    torch.testing.assert_close(logits(load_published(name)), logits(theirs))
    labels = tuple(weights.meta["categories"])
    assert about_published(name) == About(USUAL["imagenet"], Crop(224, 256, "bilinear"), labels=labels)
    assert labels[1] == "goldfish"


def test_the_users_weights_have_as_many_logits_as_his_images_have_classes() -> None:
    assert logits(load_published("torchvision:squeezenet1_1", classes=7)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torchvision:resnet19", "torchvision has no classifier 'resnet19'"),
        ("torchvision:resnet18:BEST", "expected weights of resnet18 (IMAGENET1K_V1), got BEST"),
        ("torchvision:squeezenet1_1", "cannot be had"),
        ("hf:nobody/nothing", "on the hub or in its cache, got neither"),
    ],
)
def test_what_cannot_be_had_is_one_line(name: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        load_published(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", lacking)
    with pytest.raises(InputError, match=r"needs the package timm; run: pip install -e '\.\[hub\]'"):
        load_published("timm:resnet18")


# timm


def test_a_model_of_timm_and_one_from_a_folder_of_its_own(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the package timm")
    theirs = timm.create_model("resnet10t.c3_in1k", num_classes=5)
    timm.models.save_for_hf(
        theirs,
        tmp_path / "folder",
        model_config={"num_classes": 5, "label_names": list("ecabd")},
        safe_serialization=True,
    )
    folder = f"hf:{tmp_path / 'folder'}"
    torch.testing.assert_close(logits(load_published(folder)), logits(theirs))
    config = timm.data.resolve_model_data_config(theirs)
    size, part = config["input_size"][-1], config["crop_pct"]
    crop = Crop(size, int(size / part), config["interpolation"])
    about = About(Normalisation(config["mean"], config["std"]), crop, squashing=config["interpolation"])
    assert about_published("timm:resnet10t.c3_in1k") == about
    assert about_published(folder) == replace(about, labels=tuple("ecabd"))
    assert logits(load_published("timm:resnet10t.c3_in1k", classes=3)).shape == (2, 3)
    with pytest.raises(InputError, match="timm has no model"):
        load_published("timm:resnet9999")


def test_weights_of_timm_come_from_the_hub_or_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm", reason="needs the package timm")
    theirs = timm.create_model("resnet10t.c3_in1k")
    timm.models.save_for_hf(theirs, tmp_path, safe_serialization=True)
    asked = []

    def snapshot(*of: str) -> Path:
        asked.append(of)
        return tmp_path

    monkeypatch.setattr(hub, "_snapshot", snapshot)
    loaded = load_published("timm:resnet10t.c3_in1k")
    assert asked == [("timm/resnet10t.c3_in1k", "timm:resnet10t.c3_in1k")]
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(X), theirs.eval()(X))
    (tmp_path / hub.WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"expected model.safetensors in the repository timm/resnet10t.c3_in1k"):
        load_published("timm:resnet10t.c3_in1k")


# transformers


def test_a_classifier_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=dict(enumerate("cabd"))
    )
    theirs = transformers.ResNetForImageClassification(config)
    theirs.save_pretrained(tmp_path)
    about = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3}
    about |= {"do_resize": True, "size": {"shortest_edge": 48}, "crop_pct": 0.75}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    loaded = load_published(f"hf:{tmp_path}")
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(X).logits, theirs.eval()(X).logits)
    normalisation = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    expected = About(normalisation, Crop(48, 64, "bicubic"), "logits", squashing="bicubic", labels=tuple("cabd"))
    assert about_published(f"hf:{tmp_path}") == expected


def test_a_network_of_transformers_has_as_many_logits_as_the_users_images_have_classes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=4)
    config.save_pretrained(tmp_path)  # no weights: they are the user's
    with torch.no_grad():
        assert load_published(f"hf:{tmp_path}", classes=7).eval()(X).logits.shape == (2, 7)


# Folders that are none


def of_another_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"task": "translation"}')


def without_weights(folder: Path) -> None:
    (folder / "config.json").write_text(
        json.dumps({"library_name": hub.LIBRARY, "architecture": "digits-cnn", "classes": 10})
    )


def with_others_weights(folder: Path) -> None:
    without_weights(folder)
    save_file({"a": torch.zeros(1)}, folder / hub.WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (bool, "expected a model's"),
        (lambda folder: (folder / "config.json").write_text("{"), "could not read it"),
        (of_another_kind, "got a config.json of another kind; load it in a factory of your own"),
        (without_weights, "expected a checkpoint at"),
        (with_others_weights, "got others: "),
    ],
)
def test_folders_that_hold_no_model_are_one_line(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        load_published(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
