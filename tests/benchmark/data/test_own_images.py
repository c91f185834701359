"""A user's own images: what is read, how it is labelled and cut, and what is refused in one line."""

import hashlib
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

from attacks.errors import InputError
from benchmark.data.image_readers import own_images
from benchmark.data.lazy_images import LazyImages
from benchmark.data.split import Split, balanced_subset, take
from model_zoo.crop import Crop

SIZES = ((40, 40), (52, 40), (40, 60))
SUFFIXES = (".png", ".jpg", ".JPEG", ".webp", ".bmp")


def noise(height: int, width: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of five pictures: every format, three sizes."""
    folder = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog", "owl")):
        (folder / name).mkdir(parents=True)
        for i, suffix in enumerate(SUFFIXES):
            noise(*SIZES[i % 3], seed=10 * label + i).save(folder / name / f"{i}{suffix}", quality=90)
    return folder


def test_class_folders_are_read_as_torchvision_reads_them(photos: Path) -> None:
    split = own_images(photos, crop=Crop(32, 36)).select(None, seed=0)
    transform = Compose([Resize(36), CenterCrop(32), ToTensor()])
    theirs = ImageFolder(str(photos), transform, is_valid_file=bool)
    x, y = next(iter(DataLoader(theirs, len(theirs))))
    assert isinstance(split.x, LazyImages)
    assert split.x.shape == (15, 3, 32, 32)
    torch.testing.assert_close(split.x.to("cpu"), x, rtol=0, atol=0)
    assert split.x[torch.tensor([], dtype=torch.int64)].to("cpu").shape == (0, 3, 32, 32)
    assert torch.equal(split.y, y)
    assert (split.dataset, split.classes, list(split.index)) == ("photos", 3, list(range(15)))


def test_resizing_is_bicubic_where_a_model_wants_it(photos: Path) -> None:
    transform = Compose([Resize(36, InterpolationMode.BICUBIC), CenterCrop(32), ToTensor()])
    with Image.open(photos / "cat/0.png") as image:
        expected = transform(image)
    x = own_images(photos, crop=Crop(32, 36, "bicubic")).select(None, seed=0).x[:1].to("cpu")
    torch.testing.assert_close(x[0], expected, rtol=0, atol=0)


def test_selections_are_decoded_alike_in_any_batches(photos: Path) -> None:
    split = own_images(photos, crop=Crop(32, 32)).select(None, seed=0)
    whole = split.x.to("cpu")
    assert torch.equal(torch.cat(list(split.x.split(4))), whole)
    rows = np.array([2, 7, 11])
    assert torch.equal(take(split, rows).x.to("cpu"), whole[rows])
    assert torch.equal(split.x[3:6].to("cpu"), whole[3:6])
    assert torch.equal(split.x[torch.tensor([1, 2])].to("cpu"), whole[1:3])


def test_many_images_are_decoded_by_several_processes_in_their_order(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = own_images(photos, crop=Crop(32, 32)).select(None, seed=0).x
    alone = lazy.to("cpu")
    monkeypatch.setattr("benchmark.data.lazy_images._BATCH", 4)
    assert torch.equal(lazy.to("cpu"), alone)


def test_the_digest_is_of_pixels_labels_and_places(photos: Path) -> None:
    def digest(crop: Crop = Crop(32, 32)) -> str:  # noqa: B008
        return own_images(photos, crop=crop).select(None, seed=0).digest

    before = digest()
    assert digest() == before
    assert digest(crop=Crop(32, 36)) != before
    image = photos / "cat/0.png"
    with Image.open(image) as opened:
        pixels = np.array(opened)
    image.touch()
    assert digest() == before
    pixels[20, 20, 0] ^= 255
    Image.fromarray(pixels).save(image)
    assert digest() != before


def test_the_digest_of_a_selection_is_that_of_its_images(photos: Path) -> None:
    whole = own_images(photos, crop=Crop(32, 32)).select(None, seed=0)
    fewer = own_images(photos, crop=Crop(32, 32)).select(6, seed=1)
    assert fewer.digest == take(whole, fewer.index.numpy()).digest
    assert sorted(fewer.y.bincount()) == [2, 2, 2]
    checksum = hashlib.sha256((whole.x.to("cpu")[:1] * 255).round().byte().numpy().tobytes()).digest()
    assert isinstance(whole.x, LazyImages)
    assert whole.x.checksums[0].tobytes() == checksum


def test_nothing_is_decoded_but_what_is_asked_for(photos: Path) -> None:
    brought = own_images(photos, crop=Crop(32, 32))
    (photos / "dog/2.JPEG").write_bytes(b"no picture")
    without, within = (next(s for s in range(99) if (7 in _places(photos, s)) is has) for has in (False, True))
    assert len(brought.select(3, seed=without)) == 3
    with pytest.raises(InputError, match=r"dog/2.JPEG: expected an image"):
        brought.select(3, seed=within)


def _places(photos: Path, seed: int) -> list[int]:
    whole = own_images(photos, crop=Crop(32, 32))
    labels = torch.from_numpy(whole.labels)
    split = Split("photos", "test", torch.empty(15, 0), labels, torch.arange(15), 3)
    return list(balanced_subset(split, 3, seed=seed).index.tolist())


def test_grey_levels_and_colours_are_as_the_first_image_has_them_or_as_asked(photos: Path) -> None:
    assert own_images(photos, crop=Crop(8, 8)).shape == (3, 8, 8)
    assert own_images(photos, crop=Crop(8, 8), channels=1).select(None, seed=0).x.to("cpu").shape == (15, 1, 8, 8)
    with Image.open(photos / "cat/0.png") as image:
        grey = image.convert("L")
    grey.save(photos / "cat/0.png")
    assert own_images(photos, crop=Crop(8, 8)).shape == (1, 8, 8)


# Labels


def test_a_file_of_classes_says_where_the_logits_of_some_folders_are(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nowl\nbee\ncat\ndog\n")
    brought = own_images(photos, crop=Crop(8, 8), classes=tmp_path / "names.txt")
    assert brought.classes == 5
    assert brought.labels.tolist() == [3] * 5 + [4] * 5 + [1] * 5


def test_a_thousand_classes_of_which_three_have_folders(photos: Path, tmp_path: Path) -> None:
    wordnet = [f"n{i:08}" for i in range(1000)]
    for name, wnid in zip(("cat", "dog", "owl"), ("n00000007", "n00000500", "n00000999"), strict=True):
        (photos / name).rename(photos / wnid)
    (tmp_path / "imagenet.txt").write_text("\n".join(wordnet))
    brought = own_images(photos, crop=Crop(224, 256), classes=tmp_path / "imagenet.txt")
    assert (brought.classes, brought.shape) == (1000, (3, 224, 224))
    assert sorted(set(brought.labels.tolist())) == [7, 500, 999]
    assert brought.select(3, seed=0).x.to("cpu").shape == (3, 3, 224, 224)


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def removed(photos: Path, *names: str) -> None:
    for name in names:
        emptied(photos / name)
        (photos / name).rmdir()


def renamed(photos: Path, names: str) -> None:
    for path, name in zip(sorted(photos.iterdir()), names.split(), strict=True):
        path.rename(photos / name)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda photos: emptied(photos / "dog"), "dog: expected images of a class"),
        (lambda photos: removed(photos, "dog", "owl"), "two classes at least, got 1"),
        (lambda photos: removed(photos, "cat", "dog", "owl"), "two classes at least, got 0"),
        (lambda photos: renamed(photos, "1 2 10"), "numbers without leading zeros"),
    ],
    ids=["no images", "one class", "none", "numbers"],
)
def test_folders_that_say_no_labels_are_refused(photos: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(photos)
    with pytest.raises(InputError, match=says) as caught:
        own_images(photos, crop=Crop(8, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("cat\ndog\n", "expected folders named in --classes, got 'owl'"),
        ("cat\ndog\nowl\ncat\n", "got 4 lines with 3 names"),
        ("", "got 0 lines"),
        ("\xff", "could not read them"),
    ],
)
def test_files_of_classes_that_do_not_fit_are_refused(photos: Path, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "names.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=says):
        own_images(photos, crop=Crop(8, 8), classes=tmp_path / "names.txt")


# Pixels that would have to be guessed


def transparent(path: Path) -> None:
    Image.new("RGBA", (40, 40), (9, 9, 9, 128)).save(path, format="PNG")


def of_16_bits(path: Path) -> None:
    Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)).save(path, format="PNG")


def of_16_bits_and_coloured(path: Path, *, alpha: bool = False) -> None:
    """Written by hand: PIL writes none."""
    channels = 4 if alpha else 3
    rows = b"".join(b"\0" + np.full(40 * channels, 40_000, dtype=">u2").tobytes() for _ in range(40))
    header = struct.pack(">IIBBBBB", 40, 40, 16, 6 if alpha else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def for_print(path: Path) -> None:
    Image.new("CMYK", (40, 40)).save(path, format="JPEG")


def animated(path: Path) -> None:
    frames = [Image.new("L", (40, 40), shade) for shade in (0, 255)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def cut_off(path: Path) -> None:
    noise(40, 40, 0).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (transparent, "got one with transparent pixels; put it on a background"),
        (of_16_bits, "more than 8 bits a channel; convert it"),
        (of_16_bits_and_coloured, "more than 8 bits a channel; convert it"),
        (partial(of_16_bits_and_coloured, alpha=True), "more than 8 bits a channel; convert it"),
        (for_print, "got one in CMYK; convert it to RGB"),
        (animated, "got an animation of 2 frames; save one of them"),
        (cut_off, "could not read it"),
        (lambda path: path.write_bytes(b""), "could not read it"),
    ],
)
def test_a_picture_that_cannot_be_taken_is_named_counted_and_left_out_only_where_asked(
    photos: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], says: str
) -> None:
    spoil(photos / "dog/1.jpg")
    brought = own_images(photos, crop=Crop(32, 32))
    with pytest.raises(InputError, match=says) as caught:
        brought.select(None, seed=0)
    assert "dog/1.jpg" in str(caught.value)
    assert str(caught.value).endswith("leave 1 of 15 images out by --skip-broken 1")
    split = brought.select(None, seed=0, most_broken=1)
    assert 6 not in split.index
    assert (len(split), split.x.shape[0]) == (14, 14)
    assert "left out: " in capsys.readouterr().err
    spoil(photos / "owl/1.jpg")
    with pytest.raises(InputError, match="and 1 other; or leave 2 of 15 images out by --skip-broken 2"):
        brought.select(None, seed=0, most_broken=1)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise(30, 50, 0).save(path, format="JPEG", exif=exif)


def test_a_picture_that_is_to_be_turned_is_taken_as_it_lies_and_that_is_said(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_images(photos, crop=Crop(8, 8))
    assert capsys.readouterr().err == ""
    turned(photos / "cat/0.png")
    lying = own_images(photos, crop=Crop(8, 8)).select(None, seed=0).x[:1].to("cpu")
    assert f"pictures such as {photos / 'cat/0.png'} say that they are to be turned" in capsys.readouterr().err
    with Image.open(photos / "cat/0.png") as image:
        torch.testing.assert_close(lying[0], Compose([Resize(8), CenterCrop(8), ToTensor()])(image), rtol=0, atol=0)


def test_what_lies_beside_class_folders_or_is_hidden_is_no_image(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(own_images(photos, crop=Crop(8, 8)).labels)
    shutil.copy(photos / "cat/0.png", photos / "loose.png")
    (photos / "cat/.thumbs").mkdir()
    shutil.copy(photos / "cat/0.png", photos / "cat/.thumbs/0.png")
    assert len(own_images(photos, crop=Crop(8, 8)).labels) == before
    assert f"passed over, in no class folder: {photos / 'loose.png'}" in capsys.readouterr().err


def test_parts_of_a_dataset_are_no_classes(photos: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(photos, tmp_path / "parts" / part)
    with pytest.raises(InputError, match=r"got parts of a dataset \(train, val\); name one of them: --data .*val"):
        own_images(tmp_path / "parts", crop=Crop(8, 8))


def test_a_first_picture_that_cannot_be_taken_is_as_any_other(photos: Path) -> None:
    transparent(photos / "cat/0.png")
    brought = own_images(photos, crop=Crop(32, 32))
    with pytest.raises(InputError, match="got one with transparent pixels") as caught:
        brought.select(None, seed=0)
    assert str(caught.value).endswith("leave 1 of 15 images out by --skip-broken 1")
    assert len(brought.select(None, seed=0, most_broken=1)) == 14


def test_gifs_are_pictures_and_other_files_are_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    animated(photos / "cat/moves.gif")
    (photos / "cat/notes.txt").write_text("a note")
    brought = own_images(photos, crop=Crop(32, 32))
    assert "note: passed over" in (said := capsys.readouterr().err)
    assert "cat/notes.txt" in said
    with pytest.raises(InputError, match=r"moves.gif: .*an animation of 2 frames"):
        brought.select(None, seed=0)


def test_an_opaque_alpha_channel_takes_nothing_away(photos: Path) -> None:
    with Image.open(photos / "cat/0.png") as image:
        pixels = np.array(image)
        with_alpha = image.convert("RGBA")
    with_alpha.save(photos / "cat/0.png")
    x = own_images(photos, crop=Crop(40, 40)).select(None, seed=0).x[:1].to("cpu")
    np.testing.assert_array_equal((x[0] * 255).round().byte().permute(1, 2, 0).numpy(), pixels)


def test_colours_are_turned_to_grey_only_where_asked(photos: Path) -> None:
    with Image.open(photos / "cat/0.png") as image:
        image.convert("L").save(photos / "cat/0.png")
    with pytest.raises(InputError, match=r"expected grey levels, as the first image has, got RGB") as caught:
        own_images(photos, crop=Crop(8, 8)).select(None, seed=0)
    assert "--channels 3" in str(caught.value)
    assert own_images(photos, crop=Crop(8, 8), channels=1).select(None, seed=0).x.shape[1] == 1
    assert own_images(photos, crop=Crop(8, 8), channels=3).select(None, seed=0).x.shape[1] == 3


def test_images_of_several_sizes_need_one(photos: Path) -> None:
    with pytest.raises(InputError, match=r"expected 40x40 pixels, as the first image has, got 40x52") as caught:
        own_images(photos).select(None, seed=0)
    assert "--image-size, and 8 others" in str(caught.value)


# Arrays


def saved(path: Path, x: NDArray[np.generic], y: NDArray[np.generic]) -> Path:
    np.savez(path, x=x, y=y)
    return path


@pytest.mark.parametrize(
    ("turn", "shape"),
    [
        (lambda x: x, (3, 9, 7)),
        (lambda x: x.transpose(0, 2, 3, 1), (3, 9, 7)),
        (lambda x: (x / 255).astype(np.float64), (3, 9, 7)),
        (lambda x: x[:, 0], (1, 9, 7)),
    ],
    ids=["NCHW", "NHWC", "float", "NHW"],
)
def test_arrays_are_read_in_the_usual_layouts(
    tmp_path: Path, turn: Callable[[NDArray[np.uint8]], NDArray[np.generic]], shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 3, 9, 7), dtype=np.uint8)
    brought = own_images(saved(tmp_path / "some.npz", turn(x), np.arange(6) % 3))
    split = brought.select(None, seed=0)
    assert (brought.name, brought.classes, brought.shape) == ("some", 3, shape)
    torch.testing.assert_close(split.x, torch.from_numpy(x[:, : shape[0]].astype(np.float32) / 255))
    assert split.y.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((2, 3, 4, 4)) + 2, np.arange(2), r"expected pixels in \[0, 1\]"),
        (np.zeros((2, 3, 4, 4), np.int16), np.arange(2), "expected x as uint8, or floats"),
        (np.ones((2, 3, 4, 4), np.uint8), np.arange(2), "expected x as uint8 up to 255, got none above 1"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.arange(3), "expected a class index for each of 2 images"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2), "expected y as whole numbers"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.array([-1, 1]), "expected labels of two classes at least, from 0 to 1"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, int), "expected labels of two classes at least"),
        (np.zeros((2, 4), np.uint8), np.arange(2), "expected float images"),
        (np.full((2, 3, 4, 4), np.nan), np.arange(2), r"expected pixels in \[0, 1\]"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(
    tmp_path: Path, x: NDArray[np.generic], y: NDArray[np.generic], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        own_images(saved(tmp_path / "some.npz", x, y))


def test_paths_with_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder or an .npz at .*, found none"):
        own_images(tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="found another file"):
        own_images(tmp_path / "file.txt")
    np.savez(tmp_path / "odd.npz", a=np.zeros(2))
    with pytest.raises(InputError, match="expected arrays x and y"):
        own_images(tmp_path / "odd.npz")
    with pytest.raises(InputError, match="arrays are taken as they are"):
        own_images(saved(tmp_path / "some.npz", np.zeros((2, 3, 4, 4), np.uint8), np.arange(2)), crop=Crop(4, 4))


@pytest.mark.parametrize("part", [slice(0, 90), slice(0, 4), None])
def test_damaged_arrays_are_one_line(tmp_path: Path, part: slice | None) -> None:
    path = saved(tmp_path / "some.npz", np.zeros((9, 3, 8, 8), np.uint8), np.arange(9))
    content = bytearray(path.read_bytes())
    content[120] ^= 1
    path.write_bytes(content if part is None else content[part])
    with pytest.raises(InputError, match="expected arrays x and y") as caught:
        own_images(path)
    assert "\n" not in str(caught.value)


def test_a_folder_has_its_whole_name_and_a_file_none_of_its_ending(photos: Path, tmp_path: Path) -> None:
    versioned = photos.rename(tmp_path / "my photos.v1")
    assert own_images(versioned, crop=Crop(8, 8)).name == "my-photos.v1"
    x, y = np.zeros((2, 3, 8, 8), np.uint8), np.arange(2)
    assert own_images(saved(tmp_path / "some.v2.npz", x, y)).name == "some.v2"


# Labels of a published model


def test_a_models_labels_are_the_classes_where_the_folders_are_called_so(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = sorted(path.name for path in photos.iterdir())
    as_sorted = own_images(photos, crop=Crop(8, 8))
    labels = [*folders[::-1], "another", "another"]
    brought = own_images(photos, crop=Crop(8, 8), labels=labels)
    assert brought.classes == len(labels)
    assert [labels[label] for label in brought.labels] == [folders[label] for label in as_sorted.labels]
    assert (
        f"the classes are {len(folders)} of the model's {len(labels)} labels, in its order" in capsys.readouterr().err
    )
    alike = own_images(photos, crop=Crop(8, 8), labels=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert (alike.classes, alike.labels.tolist()) == (as_sorted.classes, as_sorted.labels.tolist())
    assert capsys.readouterr().err == ""


def test_classes_that_the_user_names_go_before_a_models_labels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("dog\nowl\ncat\n")
    brought = own_images(photos, crop=Crop(8, 8), classes=tmp_path / "names.txt", labels=["owl", "cat", "dog"])
    assert brought.labels.tolist() == [2] * 5 + [0] * 5 + [1] * 5
    assert capsys.readouterr().err == ""


def test_labels_that_agree_in_part_or_twice_are_asked_for(photos: Path) -> None:
    first, *others = sorted(path.name for path in photos.iterdir())
    for labels, says in (([first, "other"], "which is none"), ([first, first, *others], "which is that of 2")):
        with pytest.raises(InputError, match=says) as caught:
            own_images(photos, crop=Crop(8, 8), labels=labels)
        assert "name all classes in the order of the logits by --classes FILE" in str(caught.value)


# Datasets of the hub


def test_a_dataset_of_the_hub_on_disk_is_read_as_its_files_are(photos: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    rows = {
        "image": [str(path) for path in files],
        "label": [("cat", "dog", "owl").index(p.parent.name) for p in files],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "owl"])})
    whole = datasets.Dataset.from_dict(rows, features)
    whole.save_to_disk(tmp_path / "one", num_shards=1)
    expected = own_images(photos, crop=Crop(32, 32)).select(None, seed=0)
    split = own_images(tmp_path / "one", crop=Crop(32, 32)).select(None, seed=0)
    assert split.digest == expected.digest
    labelled = own_images(tmp_path / "one", crop=Crop(32, 32), labels=["owl", "ant", "cat", "dog"])
    assert (labelled.classes, [(2, 3, 0)[y] for y in expected.y.tolist()]) == (4, labelled.labels.tolist())
    datasets.DatasetDict({"train": whole.select([0]), "test": whole}).save_to_disk(tmp_path / "parts")
    assert own_images(tmp_path / "parts", crop=Crop(32, 32)).select(None, seed=0).digest == expected.digest
    turned(files[0])
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "turned", num_shards=1)
    theirs = datasets.load_from_disk(str(tmp_path / "turned"))[0]["image"]
    pixels = own_images(tmp_path / "turned", crop=Crop(30, 30)).select(None, seed=0).x[:1].to("cpu")
    assert torch.equal(pixels[0], Compose([Resize(30), CenterCrop(30), ToTensor()])(theirs))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.json").write_text("{}")
    with pytest.raises(InputError, match="expected a dataset of the package datasets"):
        own_images(tmp_path / "broken", crop=Crop(32, 32))
    datasets.DatasetDict({"train": whole}).save_to_disk(tmp_path / "train")
    with pytest.raises(InputError, match="expected a part called test or validation, got train"):
        own_images(tmp_path / "train", crop=Crop(32, 32))
    whole.cast_column("label", datasets.Value("int64")).save_to_disk(tmp_path / "plain")
    with pytest.raises(InputError, match="one column of images and one of class labels"):
        own_images(tmp_path / "plain", crop=Crop(32, 32))
