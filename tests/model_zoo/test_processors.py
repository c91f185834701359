"""Processors of transformers: what is read of one is what its class does to pictures, or it is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attacks.errors import InputError
from attacks.models.normalisation import USUAL, Normalisation
from model_zoo.about import About
from model_zoo.crop import Crop
from model_zoo.load import external_model
from model_zoo.processors import SETTINGS, read_processor

transformers = pytest.importorskip("transformers", reason="needs the package transformers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
ROOTS = [0.47853944, 0.4732864, 0.47434163]
"""EfficientNet's image_std, whose squares are ImageNet's: its processor divides by it twice."""


def saved(folder: Path, kind: str, settings: dict[str, Any]) -> Any:
    """The real processor of those settings, saved to a folder with a config.json of a network."""
    processor = getattr(transformers, f"{kind}ImageProcessor")(**settings)
    processor.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    return processor


def read(folder: Path) -> About:
    return read_processor(folder, transformers.AutoImageProcessor)


# Normalisation


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViT", {}),
        ("ConvNext", IMAGENET),
        ("EfficientNet", {"image_mean": IMAGENET["image_mean"], "image_std": ROOTS}),
        ("EfficientNet", {**IMAGENET, "include_top": False}),
        ("EfficientNet", {**IMAGENET, "include_top": False, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("EfficientNet", {"do_normalize": False, "rescale_offset": True, "image_std": ROOTS}),
        ("ViT", {**IMAGENET, "rescale_factor": 1 / 127.5}),
        ("ViT", {"do_rescale": False, "image_mean": [124.0, 116.0, 104.0], "image_std": [58.0, 57.0, 56.0]}),
        ("ViT", {"do_rescale": False, "do_normalize": False}),
        ("ViT", {"do_normalize": False}),
    ],
)
def test_black_white_and_coloured_pictures_come_out_as_the_class_has_them(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    processor, about = saved(tmp_path, kind, settings), read(tmp_path)
    assert about.unlike == ""
    layer = (about.normalisation or USUAL["none"]).layer()
    for colour in ((0, 0, 0), (255, 255, 255), (10, 100, 200)):
        out = processor(images=Image.new("RGB", (300, 260), colour), return_tensors="pt")["pixel_values"].float()
        expected = layer((torch.tensor(colour) / 255).view(1, 3, 1, 1)).expand_as(out)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_the_usual_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    saved(tmp_path, "ViT", IMAGENET)
    assert read(tmp_path).normalisation == USUAL["imagenet"]
    saved(tmp_path, "ViT", {"do_normalize": False})
    assert read(tmp_path).normalisation is None


def test_efficientnets_std_counts_twice_also_where_its_file_says_nothing_of_it(tmp_path: Path) -> None:
    saved(tmp_path, "EfficientNet", {"image_mean": IMAGENET["image_mean"], "image_std": ROOTS})
    settings = json.loads((tmp_path / SETTINGS).read_text())
    assert settings.pop("include_top") is True
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    normalisation = read(tmp_path).normalisation
    assert normalisation is not None
    assert normalisation.std == pytest.approx(USUAL["imagenet"].std, abs=1e-7)


def test_grey_levels_have_one_mean(tmp_path: Path) -> None:
    saved(tmp_path, "ViT", {"image_mean": [0.5], "image_std": [0.25]})
    assert read(tmp_path).normalisation == Normalisation((0.5,), (0.25,))


@pytest.mark.parametrize("said", [None, USUAL["imagenet"]])
def test_a_processor_that_swaps_channels_needs_a_normalisation_of_the_users(
    tmp_path: Path, said: Normalisation | None
) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=4)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    transformers.MobileViTImageProcessor().save_pretrained(tmp_path)
    about: dict[str, Any] = {"dataset": "some", "suite": "some", "normalisation": said}
    if said is not None:
        spec = external_model(f"hf:{tmp_path}", None, **about)
        assert spec.quirks is not None
        assert spec.quirks.normalisation == said
        return
    with pytest.raises(InputError, match="MobileViTImageProcessor does other things") as caught:
        external_model(f"hf:{tmp_path}", None, **about)
    assert "give --mean and --std" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_its_class_leaves_aside_is_not_guessed_at(tmp_path: Path) -> None:
    saved(tmp_path, "ViT", {**IMAGENET, "include_top": True})  # which is EfficientNet's alone
    assert read(tmp_path) == About(unlike="ViTImageProcessor does other things to colours than its settings say")


def test_a_file_that_no_class_reads_is_said_and_a_file_that_lacks_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    assert read(tmp_path) == About()
    (tmp_path / SETTINGS).write_text("{")
    assert "cannot be used" in read(tmp_path).unlike


# Crops


@pytest.mark.parametrize(
    ("kind", "settings", "crop"),
    [
        ("Bit", {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}}, Crop(32, 48, "bicubic")),
        ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 2}, Crop(224, 256)),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}, None),  # squashed from there on
        ("Levit", {"size": {"shortest_edge": 112}, "crop_size": 112}, Crop(112, 128, "bicubic")),
        ("ViT", {"size": {"height": 64, "width": 64}}, None),  # squashed
        ("Perceiver", {"size": {"height": 64, "width": 64}}, None),  # cut before it is resized
    ],
)
def test_a_crop_is_what_the_class_does_or_there_is_none(
    tmp_path: Path, kind: str, settings: dict[str, Any], crop: Crop | None
) -> None:
    processor, about = saved(tmp_path, kind, settings), read(tmp_path)
    assert about.crop == crop
    assert about.interpolation == ("bilinear" if kind == "ViT" or settings.get("resample") == 2 else "bicubic")
    if crop is None:
        return
    levels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(levels).resize((270, 210), Image.Resampling.BICUBIC)
    out = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    x = torch.from_numpy(np.array(crop.of(picture))).permute(2, 0, 1)[None] / 255
    assert about.normalisation is not None
    assert (about.normalisation.layer()(x)[0] - out).abs().mean() < 0.02


def test_where_images_are_squashed_the_interpolation_is_known_all_the_same(tmp_path: Path) -> None:
    saved(tmp_path, "ViT", {"resample": 3})
    about = read(tmp_path)
    assert (about.crop, about.interpolation) == (None, "bicubic")
