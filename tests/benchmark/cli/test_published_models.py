"""--model torchvision:NAME, timm:NAME, hf:FOLDER, and `push`, which writes such a folder."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from attacks.models.normalisation import USUAL
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.resolve_hardware import bring_images
from benchmark.data.image_readers import own_images
from model_zoo.crop import Crop
from model_zoo.hub import about_published
from model_zoo.load import external_model

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[3]
FEW = ("--attacks", "fgsm,pgd-20", "--examples", "40", "--transfer", "none", "--quiet")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def scores(folder: Path, suite: str) -> pd.DataFrame:
    return pd.read_csv(folder / "results/mine" / suite / "scores.csv")


def test_a_pushed_model_comes_back_with_its_numbers_and_a_card_that_the_hub_reads(
    command: Command, tmp_path: Path
) -> None:
    measured = command(tmp_path, "--models", "madry", *FEW)
    assert measured.returncode == 0, measured.stderr
    pushed = command(tmp_path, "push", "--models", "madry", "--folder", "hub/madry")
    assert pushed.returncode == 0, pushed.stderr
    assert "hf upload USER/madry hub/madry" in pushed.stdout
    before = scores(tmp_path, "digits")
    back = command(tmp_path, "--model", "hf:hub/madry", "--name", "back", *FEW)
    assert back.returncode == 0, back.stderr
    after = scores(tmp_path, "digits").query("model == 'back'")
    columns = ["attack", "n", "clean_acc", "robust_acc", "forwards_per_image"]
    assert after[columns].values.tolist() == before[columns].values.tolist()
    card = ModelCard.load(tmp_path / "hub/madry/README.md")
    assert card.data.eval_results is not None
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    worst = pd.read_csv(tmp_path / "results/mine/digits/leaderboard.csv").query("model == 'madry'").iloc[0]
    assert values == {"accuracy": worst["clean"], "robust_accuracy": worst["worst case"]}
    assert "Linf 0.2" in card.text
    assert f"| pgd-20 | {worst['pgd-20']:.2f} | 40 |" in card.text
    assert f"[{worst['ci_low']:.2f}, {worst['ci_high']:.2f}]" in card.text
    assert "train --defense madry" in card.text


def test_a_card_has_the_threat_model_of_its_numbers_and_none_of_other_weights(command: Command, tmp_path: Path) -> None:
    few = ("--attacks", "fgsm", "--examples", "40", "--transfer", "fgsm", "--sources", "natural", "--quiet")
    assert command(tmp_path, "--models", "madry", *few, "--epsilon", "0.1").returncode == 0
    assert command(tmp_path, "push", "--models", "madry", "--folder", "hub").returncode == 0
    card = (tmp_path / "hub/README.md").read_text()
    assert "Linf 0.1" in card
    assert "Linf 0.2" not in card
    assert "| fgsm from natural | " in card
    scores = tmp_path / "results/mine/digits/scores.csv"
    table = pd.read_csv(scores)
    table["checkpoint_sha256"] = "0" * 64
    table.to_csv(scores, index=False)
    other = command(tmp_path, "push", "--models", "madry", "--folder", "hub")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--models", "madry"),
            "expected the robust accuracy of madry, with these weights, in results/mine/digits/scores.csv",
        ),
        (("--models", "madri"), "madry"),
        (("--models", "madry", "--suite", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(command: Command, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = command(tmp_path, "push", *words, "--folder", "hub")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr
    assert not (tmp_path / "hub").exists()


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Two classes of four grey pictures, larger than the model wants them."""
    for name, shade in (("bright", 200), ("dark", 50)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((300, 280, 3), shade + i, dtype=np.uint8)).save(tmp_path / f"shades/{name}/{i}.png")
    return tmp_path


def test_a_model_of_timm_with_weights_of_ones_own_takes_images_as_timm_prepares_them(
    command: Command, shades: Path
) -> None:
    timm = pytest.importorskip("timm", reason="needs the package timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config)
    files = sorted((shades / "shades").rglob("*.png"))
    x = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    with torch.no_grad():
        apart = model.forward_features(x).mean((0, 2, 3))
        bright, dark = (model.forward_features(part).mean((0, 2, 3)) for part in (x[:4], x[4:]))
        model.fc.weight.copy_(torch.stack([bright - apart, dark - apart]))
        model.fc.bias.copy_(-model.fc.weight @ apart)
        assert model(x).argmax(1).tolist() == [0] * 4 + [1] * 4
    torch.save(model.state_dict(), shades / "own.pt")
    words = ("--model", "timm:test_resnet", "--checkpoint", "own.pt", "--data", "shades", "--epsilon", "1/255")
    result = command(shades, *words, "--attacks", "fgsm", "--quiet")
    assert result.returncode == 0, result.stderr
    (row,) = scores(shades, "shades").to_dict("records")
    assert (row["model"], row["architecture"], row["n"]) == ("test_resnet", "timm:test_resnet", 8)
    assert row["clean_acc"] == 100.0


# The order of the labels, and weights of one's own for a network of transformers


@pytest.fixture
def shading(shades: Path) -> Path:
    """A classifier of transformers whose labels are not in the order of their names, and which is right on all."""
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[8], depths=[1], layer_type="basic", id2label={0: "dark", 1: "bright"}
    )
    model = transformers.ResNetForImageClassification(config).eval()
    processor = transformers.BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48})
    head = model.classifier[1]
    with torch.no_grad():
        dark, bright = (
            model.resnet(
                processor(images=Image.new("RGB", (60, 60), (shade,) * 3), return_tensors="pt")["pixel_values"]
            ).pooler_output.flatten()
            for shade in (52, 202)
        )
        middle, apart = (dark + bright) / 2, dark - bright
        head.weight.copy_(torch.stack([apart, -apart]) / apart.norm() ** 2)
        head.bias.copy_(-head.weight @ middle)
    model.save_pretrained(shades / "net")
    processor.save_pretrained(shades / "net")
    torch.save(model.state_dict(), shades / "own.pt")
    return shades


SHADING = ("--data", "shades", "--epsilon", "1/255", "--attacks", "fgsm", "--quiet")


def test_logits_have_the_order_of_a_models_own_labels_which_is_said(command: Command, shading: Path) -> None:
    result = command(shading, "--model", "hf:net", *SHADING)
    assert result.returncode == 0, result.stderr
    assert "note: shades: the classes are the model's labels, in its order: dark, bright\n" in result.stderr
    (row,) = scores(shading, "shades").to_dict("records")
    assert (row["n"], row["clean_acc"]) == (8, 100.0)


def test_folders_that_are_labels_in_part_are_one_line(command: Command, shading: Path) -> None:
    shutil.move(shading / "shades/dark", shading / "shades/night")
    asked = command(shading, "--model", "hf:net", *SHADING)
    assert (asked.returncode, asked.stderr.count("\n")) == (2, 1)
    assert "got 'bright', which is one, and 'night', which is none; name all classes" in asked.stderr
    (shading / "names.txt").write_text("night\nbright\n")
    named = command(shading, "--model", "hf:net", "--classes", "names.txt", *SHADING)
    assert named.returncode == 0, named.stderr
    (row,) = scores(shading, "shades").to_dict("records")
    assert row["clean_acc"] == 100.0


def test_a_network_of_transformers_takes_weights_of_ones_own_for_other_classes(command: Command, shading: Path) -> None:
    weights = torch.load(shading / "own.pt")
    head = "classifier.1.weight", "classifier.1.bias"
    for name in head:
        dark, bright = weights[name]
        weights[name] = torch.stack([bright, dark, dark - 100])  # in the order of the folders, and a third
    torch.save(weights, shading / "own.pt")
    (shading / "shades/none").mkdir()
    Image.new("RGB", (60, 60), (202,) * 3).save(shading / "shades/none/0.png")
    result = command(shading, "--model", "hf:net", "--checkpoint", "own.pt", *SHADING)
    assert result.returncode == 0, result.stderr
    assert "the model's labels" not in result.stderr  # the weights are others
    (row,) = scores(shading, "shades").to_dict("records")
    assert (row["n"], row["clean_acc"]) == (9, pytest.approx(100 * 8 / 9, abs=0.01))


@pytest.mark.parametrize(("size", "crop"), [(None, (224, 248)), ((40, 44), (40, 44))])
def test_an_image_size_of_ones_own_keeps_the_models_interpolation(
    shades: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] | None, crop: tuple[int, int]
) -> None:
    pytest.importorskip("timm", reason="needs the package timm")
    noise = np.random.default_rng(0).integers(0, 256, (64, 70, 3), dtype=np.uint8)
    for file in (shades / "shades").rglob("*.png"):
        Image.fromarray(noise).save(file)
    about = about_published("timm:vit_tiny_patch16_224")
    assert (about.interpolation, about.crop) == ("bicubic", Crop(224, 248, "bicubic"))
    x = {kind: own_images(shades / "shades", crop=Crop(*crop, kind)).source[0] for kind in ("bicubic", "bilinear")}
    assert not torch.equal(x["bicubic"], x["bilinear"])
    data = OwnData(shades / "shades", size)
    brought = bring_images(data, Shared(), None, OwnModel("timm:vit_tiny_patch16_224"))
    assert brought is not None
    assert torch.equal(brought.source[0], x["bicubic"])
    if size is None:
        return
    squashed = replace(about, crop=None, squashing="bicubic")
    monkeypatch.setattr("benchmark.cli.resolve_hardware.about_published", lambda _: squashed)
    brought = bring_images(data, Shared(), None, OwnModel("hf:squashing"))
    assert brought is not None
    assert torch.equal(brought.source[0], x["bicubic"])


def test_a_normalisation_that_is_given_replaces_the_published_one(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the package timm")
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "own.pt")
    about: dict[str, Any] = {"dataset": "some", "suite": "some", "classes": 2, "shape": (3, 160, 160)}
    brought, bare, other = (
        external_model("timm:test_resnet", tmp_path / "own.pt", **about, normalisation=said)
        for said in (None, USUAL["none"], USUAL["cifar10"])
    )
    in_front = [spec.quirks.normalisation if spec.quirks else None for spec in (brought, bare, other)]
    assert in_front == [about_published("timm:test_resnet").normalisation, None, USUAL["cifar10"]]
    assert len({str(spec.identity) for spec in (brought, bare, other)}) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "torchvision:resnet19"), "torchvision has no classifier 'resnet19'"),
        (("--model", "hf:nowhere/nothing-of-this-name"), "on the hub or in its cache, got neither"),
    ],
)
def test_names_that_nobody_published_are_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = command(tmp_path, *words, "--dataset", "cifar10")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr
