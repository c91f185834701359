"""Splits, selections from them, and where their images come from. No test reaches the network."""

import gzip
import hashlib
import itertools
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from attacks.errors import InputError
from benchmark.data import datasets
from benchmark.data.class_names import CLASS_NAMES
from benchmark.data.datasets import DATASETS, load
from benchmark.data.split import Split, _mix, balanced_subset, holdout, take

DIGITS_SHA256 = {
    "train": "c30e6dca487d802ccbaccd706e0e562a42ea68d7593f45be4a5d1f319ee5a3a9",
    "test": "e27fbd528077eefbe019c8c7e1fdb364dd1b8b98cae15d8b6a8a7bd732b0a1e5",
}


class NoNetwork:
    """Stands for a class of torchvision.datasets on a machine that holds no data and has no network."""

    def __init__(self, root: Path, *, download: bool, **_which: bool | str) -> None:
        if not download:
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        (root / "half/raw").mkdir(parents=True)
        (root / "half/raw/file.gz").write_bytes(b"1")
        raise URLError("Name or service\nnot known")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in DATASETS.values():
        if spec.read is not None:
            monkeypatch.setattr(torchvision.datasets, spec.source, NoNetwork)


@pytest.fixture(scope="module")
def digits() -> dict[str, Split]:
    return {part: load("digits", part, data_dir=Path("unused")) for part in ("train", "test")}


def toy(counts: list[int]) -> Split:
    """A split with counts[k] images of class k, classes interleaved, each image holding its own index."""
    generator = np.random.default_rng(0)
    y = torch.from_numpy(generator.permutation(np.repeat(np.arange(len(counts)), counts)))
    index = torch.arange(len(y))
    return Split("toy", "train", (index / len(y)).float().reshape(-1, 1, 1, 1), y, index, len(counts))


def class_counts(split: Split) -> list[int]:
    return torch.bincount(split.y, minlength=split.classes).tolist()


def save_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_cifar_folders(data_dir: Path, part: str = "test") -> None:
    """Ten class folders of two images; every pixel of image i is (i, i + 100, i + 200)."""
    names = CLASS_NAMES["cifar10"]
    for i in range(20):
        pixels = np.full((32, 32, 3), (i, i + 100, i + 200), dtype=np.uint8)
        save_png(data_dir / f"cifar10/{part}/{names[i // 2]}/image_{i % 2}.png", pixels)


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def save_idx(data_dir: Path, images: np.ndarray, labels: np.ndarray, stem: str = "t10k") -> None:
    raw = data_dir / "MNIST/raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def refused(call: Callable[[], object]) -> str:
    """The message of the InputError that the call raises, which must be one line."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Digits


@pytest.mark.parametrize("part", ["train", "test"])
def test_digits_digest_is_pinned(digits: dict[str, Split], part: str) -> None:
    assert digits[part].digest == DIGITS_SHA256[part]


@pytest.mark.parametrize(("part", "examples"), [("train", 1297), ("test", 500)])
def test_digits_part_has_the_documented_shape_and_range(digits: dict[str, Split], part: str, examples: int) -> None:
    split, spec = digits[part], DATASETS["digits"]
    assert examples == len(split) == {"train": spec.train_examples, "test": spec.test_examples}[part]
    assert split.x.shape == (examples, *spec.shape)
    assert (split.x.dtype, split.y.dtype, split.index.dtype) == (torch.float32, torch.int64, torch.int64)
    assert (split.x.min().item(), split.x.max().item()) == (0.0, 1.0)
    assert torch.equal(split.index, torch.arange(examples))


def test_digits_parts_are_stratified(digits: dict[str, Split]) -> None:
    for train, test in zip(class_counts(digits["train"]), class_counts(digits["test"]), strict=True):
        assert abs(test - (train + test) * 500 / 1797) < 1


def test_digits_parts_are_disjoint_and_cover_all_images(digits: dict[str, Split]) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    everything = sorted(zip((bunch.images * 16).tolist(), bunch.target.tolist(), strict=True))
    parts = [
        (image[0], label)
        for split in digits.values()
        for image, label in zip((split.x * 256).tolist(), split.y.tolist(), strict=True)
    ]
    assert sorted(parts) == everything


# Digest


def test_digest_tells_every_kind_of_content_apart_and_nothing_else() -> None:
    split = toy([3, 3])
    flipped = Split("toy", "train", split.x, 1 - split.y, split.index, 2)
    moved = Split("toy", "train", split.x, split.y, split.index + 1, 2)
    brighter = Split("toy", "train", split.x / 2, split.y, split.index, 2)
    reshaped = Split("toy", "train", split.x.reshape(3, 2, 1, 1), split.y, split.index, 2)
    subset = take(split, np.arange(5))
    renamed = Split("other", "test", split.x.clone(), split.y, split.index, 2)
    strided = Split("toy", "train", split.x.expand(6, 2, 1, 1)[:, :1], split.y, split.index, 2)
    assert len({s.digest for s in (split, flipped, moved, brighter, reshaped, subset)}) == 6
    assert renamed.digest == split.digest == strided.digest


def test_the_digest_of_a_split_is_computed_once() -> None:
    split = toy([3, 3])
    assert split.digest is split.digest
    assert take(split, np.arange(5)).digest != split.digest


# Subsets


def test_subset_is_balanced_and_keeps_images_with_their_labels_and_indices() -> None:
    split = toy([40, 30, 50])
    subset = balanced_subset(split, 30, seed=0)
    assert class_counts(subset) == [10, 10, 10]
    assert torch.equal(subset.index, subset.index.sort().values)
    assert torch.equal(subset.x, split.x[subset.index])
    assert torch.equal(subset.y, split.y[subset.index])


def test_subset_gives_the_remainder_to_some_classes_by_seed() -> None:
    split = toy([20] * 10)
    extra = [tuple(class_counts(balanced_subset(split, 23, seed=seed))) for seed in range(10)]
    assert all(sorted(counts) == [2] * 7 + [3] * 3 for counts in extra)
    assert len(set(extra)) > 1


def test_subset_fills_up_from_other_classes_when_one_runs_out() -> None:
    assert class_counts(balanced_subset(toy([2, 30, 30]), 22, seed=0)) == [2, 10, 10]


def test_small_subset_is_part_of_a_larger_one(digits: dict[str, Split]) -> None:
    nested = [set(balanced_subset(digits["test"], n, seed=3).index.tolist()) for n in (1, 55, 100, 200, 499)]
    assert all(small < large for small, large in itertools.pairwise(nested))


def test_subset_of_all_examples_is_the_split_itself() -> None:
    split = toy([2, 2])
    assert balanced_subset(split, 4, seed=0) is split
    assert balanced_subset(split, 1000, seed=0) is split


def test_subset_depends_on_its_seed_and_on_no_global_generator(digits: dict[str, Split]) -> None:
    first = balanced_subset(digits["test"], 100, seed=0)
    torch.manual_seed(123)
    np.random.seed(123)
    random.seed(123)
    state = torch.get_rng_state()
    again = balanced_subset(digits["test"], 100, seed=0)
    assert first.digest == again.digest
    assert torch.equal(state, torch.get_rng_state())
    assert first.digest != balanced_subset(digits["test"], 100, seed=1).digest


def test_selections_are_pinned() -> None:
    index = torch.arange(100)
    split = Split("toy", "train", torch.zeros(100, 1, 1, 1), index % 2, index, 2)
    assert balanced_subset(split, 8, seed=0).index.tolist() == [13, 27, 39, 40, 48, 52, 68, 89]
    assert holdout(split, 8, seed=0)[1].index.tolist() == [5, 17, 18, 45, 72, 79, 86, 92]


def test_hash_is_splitmix64() -> None:
    """The first three outputs of Vigna's splitmix64.c started at 0."""
    states = np.array([1, 2, 3], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert _mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_subset_picks_every_image_equally_often_over_seeds() -> None:
    split, seeds = toy([40, 40]), 400
    picked = sum(torch.isin(split.index, balanced_subset(split, 20, seed=s).index).double() for s in range(seeds))
    deviations = (torch.as_tensor(picked) - seeds / 4) / (seeds * 0.25 * 0.75) ** 0.5
    assert deviations.abs().max() < 4.5
    assert 0.5 < deviations.std() < 1.5


@pytest.mark.parametrize("examples", [0, -5])
def test_subset_of_nothing_is_refused(examples: int) -> None:
    assert f"got {examples}" in refused(lambda: balanced_subset(toy([2, 2]), examples, seed=0))


# Holdout


def test_holdout_is_proportional_and_divides_the_split() -> None:
    split = toy([10, 30, 60])
    rest, validation = holdout(split, 20, seed=0)
    assert class_counts(validation) == [2, 6, 12]
    assert sorted(rest.index.tolist() + validation.index.tolist()) == list(range(100))
    assert torch.equal(validation.x, split.x[validation.index])


def test_holdout_shares_sum_to_the_examples_asked_for() -> None:
    for examples in range(1, 22):
        rest, validation = holdout(toy([5, 7, 10]), examples, seed=0)
        assert (len(rest), len(validation)) == (22 - examples, examples)


def test_holdout_and_subset_of_one_seed_are_different_selections() -> None:
    split = toy([100, 100])
    _, validation = holdout(split, 20, seed=0)
    assert validation.digest != balanced_subset(split, 20, seed=0).digest
    assert validation.digest != holdout(split, 20, seed=1)[1].digest


@pytest.mark.parametrize("examples", [0, 4, 5])
def test_holdout_that_empties_a_side_is_refused(examples: int) -> None:
    assert f"expected 1 to 3, got {examples}" in refused(lambda: holdout(toy([2, 2]), examples, seed=0))


# Class folders


def test_class_folders_round_trip(tmp_path: Path) -> None:
    save_cifar_folders(tmp_path)
    split = load("cifar10", "test", data_dir=tmp_path)
    i = torch.arange(20)
    assert (split.dataset, split.part, split.classes) == ("cifar10", "test", 10)
    assert torch.equal(split.y, i // 2)
    assert torch.equal(split.index, i)
    assert torch.equal(split.x[:, :, 5, 7], torch.stack((i, i + 100, i + 200), dim=1).to(torch.float32) / 255)
    assert split.x.shape == (20, 3, 32, 32)


def test_class_folders_of_other_names_are_refused_unless_a_file_has_their_labels(tmp_path: Path) -> None:
    names = ["plane", "car", *CLASS_NAMES["cifar10"][2:]]  # sorted by name these are in another order
    for label, name in enumerate(names):
        save_png(tmp_path / f"cifar10/test/{name}/a.png", np.full((32, 32, 3), label, dtype=np.uint8))
    message = refused(lambda: load("cifar10", "test", data_dir=tmp_path))
    assert "airplane, automobile" in message
    assert "got 'car'" in message
    assert "--classes FILE" in message

    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    split = load("cifar10", "test", data_dir=tmp_path, classes=tmp_path / "classes.txt")
    assert torch.equal((split.x[:, 0, 0, 0] * 255).round().long(), split.y)
    (tmp_path / "classes.txt").write_text("\n".join(reversed(names)))
    split = load("cifar10", "test", data_dir=tmp_path, classes=tmp_path / "classes.txt")
    assert torch.equal(9 - (split.x[:, 0, 0, 0] * 255).round().long(), split.y)


def test_official_names_have_their_official_labels_whatever_their_order_in_the_folder(tmp_path: Path) -> None:
    for label, name in enumerate(CLASS_NAMES["fashion-mnist"]):  # not in the order of the alphabet
        save_png(tmp_path / f"fashion-mnist/test/{name}/a.png", np.full((28, 28), label, dtype=np.uint8))
    split = load("fashion-mnist", "test", data_dir=tmp_path)
    assert torch.equal((split.x[:, 0, 0, 0] * 255).round().long(), split.y)


def test_every_data_set_of_files_has_a_name_for_each_class() -> None:
    assert {name: len(set(names)) for name, names in CLASS_NAMES.items()} == {
        name: spec.classes for name, spec in DATASETS.items() if spec.read is not None
    }


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a"] * 10, "10 lines with 1 names"),
        (["a", "b"], "expected 10 names for cifar10"),
        (list("abcdefghij"), "got 'airplane'"),
    ],
)
def test_a_file_of_classes_that_does_not_name_the_folders_is_refused(
    tmp_path: Path, lines: list[str], words: str
) -> None:
    save_cifar_folders(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert words in refused(lambda: load("cifar10", "test", data_dir=tmp_path, classes=tmp_path / "classes.txt"))


def test_folders_numbered_from_one_are_refused(tmp_path: Path) -> None:
    for label in range(1, 11):
        save_png(tmp_path / f"mnist/test/{label}/a.png", np.zeros((28, 28), dtype=np.uint8))
    assert "labels 0 to 9, got '10'" in refused(lambda: load("mnist", "test", data_dir=tmp_path))


def test_a_file_of_classes_without_class_folders_is_refused(tmp_path: Path) -> None:
    save_idx(tmp_path, np.zeros((1, 28, 28)), np.zeros(1))
    for dataset in ("mnist", "digits"):
        message = refused(lambda: load(dataset, "test", data_dir=tmp_path, classes=tmp_path / "classes.txt"))  # noqa: B023
        assert "--classes names class folders" in message


def test_class_folders_keep_rows_and_columns_apart(tmp_path: Path) -> None:
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28).astype(np.uint8)
    for label in range(10):
        save_png(tmp_path / f"mnist/train/{label}/a.png", pixels)
    split = load("mnist", "train", data_dir=tmp_path)
    assert torch.equal(split.x[0, 0], torch.from_numpy(pixels).to(torch.float32) / 255)


def test_class_folders_named_by_numbers_are_ordered_by_value(tmp_path: Path) -> None:
    for label in range(100):
        save_png(tmp_path / f"cifar100/test/{label}/a.png", np.full((32, 32, 3), label, dtype=np.uint8))
    split = load("cifar100", "test", data_dir=tmp_path)
    assert torch.equal((split.x[:, 0, 0, 0] * 255).round().long(), split.y)


def test_class_folders_ignore_hidden_and_other_files(tmp_path: Path) -> None:
    save_cifar_folders(tmp_path)
    (tmp_path / "cifar10/test/.cache").mkdir()
    (tmp_path / "cifar10/test/airplane/._image_0.png").write_bytes(b"")
    (tmp_path / "cifar10/test/airplane/notes.txt").write_bytes(b"")
    assert len(load("cifar10", "test", data_dir=tmp_path)) == 20


def test_class_folders_come_before_the_files_of_torchvision(tmp_path: Path) -> None:
    save_idx(tmp_path, np.zeros((1, 28, 28)), np.zeros(1))
    for label in range(10):
        save_png(tmp_path / f"mnist/test/{label}/a.png", np.zeros((28, 28), dtype=np.uint8))
    assert len(load("mnist", "test", data_dir=tmp_path)) == 10


def test_progress_is_shown_for_many_files_unless_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_cifar_folders(tmp_path)
    load("cifar10", "test", data_dir=tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(datasets, "_PROGRESS_FROM", 10)
    load("cifar10", "test", data_dir=tmp_path, quiet=True)
    assert capsys.readouterr().err == ""
    load("cifar10", "test", data_dir=tmp_path)
    captured = capsys.readouterr()
    assert "20/20" in captured.err
    assert captured.out == ""


def test_missing_class_folder_is_refused(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"cifar10/test/{i}").mkdir(parents=True)
    message = refused(lambda: load("cifar10", "test", data_dir=tmp_path))
    assert "expected 10 class folders" in message
    assert "got 9" in message
    assert str(tmp_path / "cifar10/test") in message


def test_empty_class_folder_is_refused(tmp_path: Path) -> None:
    save_cifar_folders(tmp_path)
    for file in (tmp_path / "cifar10/test/cat").iterdir():
        file.unlink()
    assert str(tmp_path / "cifar10/test/cat") in refused(lambda: load("cifar10", "test", data_dir=tmp_path))


def test_image_of_another_size_is_refused(tmp_path: Path) -> None:
    save_cifar_folders(tmp_path)
    save_png(tmp_path / "cifar10/test/deer/odd.png", np.zeros((32, 16, 3), dtype=np.uint8))
    message = refused(lambda: load("cifar10", "test", data_dir=tmp_path))
    assert "expected 32x32 pixels" in message
    assert "got 16x32" in message
    assert "deer/odd.png" in message


def test_image_of_16_bits_is_refused(tmp_path: Path) -> None:
    save_cifar_folders(tmp_path)
    save_png(tmp_path / "cifar10/test/deer/odd.png", np.zeros((32, 32), dtype=np.uint16))
    assert "expected 8 bits per channel" in refused(lambda: load("cifar10", "test", data_dir=tmp_path))


@pytest.mark.parametrize(("width", "words"), [(9_000, "expected 32x32 pixels"), (60_000, "could not read it")])
def test_a_small_file_that_claims_a_huge_image_is_refused_before_it_is_unpacked(
    tmp_path: Path, width: int, words: str
) -> None:
    save_cifar_folders(tmp_path)
    file = tmp_path / "cifar10/test/horse/image_1.png"
    content = bytearray(file.read_bytes())
    content[16:24] = width.to_bytes(4, "big") * 2  # the header chunk's width and height, then its checksum
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    file.write_bytes(content)
    assert words in refused(lambda: load("cifar10", "test", data_dir=tmp_path))


@pytest.mark.parametrize(("head", "keep"), [(b"", 0), (b"<html>", 0), (b"", 40), (b"", 1000)])
def test_unreadable_image_is_refused(tmp_path: Path, head: bytes, keep: int) -> None:
    save_cifar_folders(tmp_path)
    file = tmp_path / "cifar10/test/horse/image_1.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    save_png(file, noise)
    file.write_bytes(head + file.read_bytes()[:keep])
    message = refused(lambda: load("cifar10", "test", data_dir=tmp_path))
    assert message.startswith(f"{file}: ")
    assert "could not read it" in message


# torchvision's files


def test_idx_files_round_trip_with_only_the_part_asked_for(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    labels = np.array([3, 0, 9, 1, 1])
    save_idx(tmp_path, images, labels)
    split = load("mnist", "test", data_dir=tmp_path)
    assert torch.equal(split.x, torch.from_numpy(images[:, None]).to(torch.float32) / 255)
    assert split.y.tolist() == labels.tolist()
    assert split.index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("keep", [0, 3, 12, 100])
def test_truncated_idx_file_is_refused(tmp_path: Path, keep: int) -> None:
    save_idx(tmp_path, np.zeros((2, 28, 28)), np.zeros(2))
    file = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    assert refused(lambda: load("mnist", "test", data_dir=tmp_path)).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 28, 28)), np.zeros(3)),
        (np.zeros((2, 32, 32)), np.zeros(2)),
        (np.zeros((2, 28, 28)), np.array([1, 10])),
        (np.zeros((0, 28, 28)), np.zeros(0)),
    ],
    ids=["more labels than images", "other size", "label out of range", "no images"],
)
def test_idx_files_of_another_data_set_are_refused(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    save_idx(tmp_path, images, labels)
    assert str(tmp_path / "MNIST/raw") in refused(lambda: load("mnist", "test", data_dir=tmp_path))


def test_mnist_test_part_has_its_known_mean(mnist: Split) -> None:
    assert mnist.x.shape == (10_000, 1, 28, 28)
    assert class_counts(mnist) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.x.double().mean().item() == pytest.approx(0.13251, abs=1e-5)


def test_cifar_files_of_torchvision_become_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)

    def cifar10(root: Path, *, train: bool, download: bool) -> SimpleNamespace:
        assert (root, train, download) == (tmp_path, False, False)
        return SimpleNamespace(data=data, targets=[1, 2, 3, 9])

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar10)
    split = load("cifar10", "test", data_dir=tmp_path)
    assert torch.equal(split.x, torch.from_numpy(data).permute(0, 3, 1, 2).to(torch.float32) / 255)
    assert split.y.tolist() == [1, 2, 3, 9]


def test_svhn_files_of_torchvision_are_asked_for_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)

    def svhn(root: Path, *, split: str, download: bool) -> SimpleNamespace:
        assert (root, split, download) == (tmp_path, "train", False)
        return SimpleNamespace(data=data, labels=np.array([1, 0, 5, 9]))

    monkeypatch.setattr(torchvision.datasets, "SVHN", svhn)
    split = load("svhn", "train", data_dir=tmp_path)
    assert torch.equal(split.x, torch.from_numpy(data).to(torch.float32) / 255)
    assert split.y.tolist() == [1, 0, 5, 9]


# Downloads


def test_download_is_moved_into_the_data_directory_and_happens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots: list[Path] = []

    def mnist(root: Path, *, train: bool, download: bool) -> None:
        assert download
        assert not train
        roots.append(root)
        save_idx(root, np.full((3, 28, 28), 255), np.arange(3))

    monkeypatch.setattr(torchvision.datasets, "MNIST", mnist)
    data_dir = tmp_path / "not/yet/there"
    first = load("mnist", "test", data_dir=data_dir)
    assert first.digest == load("mnist", "test", data_dir=data_dir).digest
    assert len(roots) == 1
    assert [p.name for p in data_dir.iterdir()] == ["MNIST"]


def test_a_mirror_s_archives_are_taken_in_place_of_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # torchvision's own class, which compares md5 and would ask the network for what lacks
    save_idx(tmp_path / "made", np.full((3, 28, 28), 255), np.arange(3))
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    resources = []
    for stem in ("train", "t10k"):
        for file in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (made,) = (tmp_path / "made").rglob(f"t10k-{file}")
            archive = gzip.compress(made.read_bytes())
            (mirror / f"{stem}-{file}.gz").write_bytes(archive)
            resources.append((f"{stem}-{file}.gz", hashlib.md5(archive).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://nowhere.invalid/"])
    assert load("mnist", "test", data_dir=tmp_path / "data", mirror=mirror).y.tolist() == [0, 1, 2]
    (mirror / resources[0][0]).write_bytes(b"damaged")
    with pytest.raises(InputError, match="the download failed"):
        load("mnist", "test", data_dir=tmp_path / "other", mirror=mirror)


@pytest.mark.parametrize("dataset", [name for name, spec in DATASETS.items() if spec.read is not None])
@pytest.mark.parametrize("part", ["train", "test"])
def test_failed_download_names_both_layouts_and_the_way_out_and_leaves_nothing(
    tmp_path: Path, dataset: str, part: str
) -> None:
    message = refused(lambda: load(dataset, part, data_dir=tmp_path / "a/b"))
    spec = DATASETS[dataset]
    for expected in (
        f"{tmp_path / 'a/b' / dataset / part}/<class>/*.png",
        str(tmp_path / "a/b" / spec.files.format(part=part)),
        "Name or service not known",
        f"from torchvision.datasets import {spec.source} ",
        "--data-dir",
    ):
        assert expected in message
    assert list(tmp_path.iterdir()) == []


def test_failed_download_keeps_what_was_there(tmp_path: Path) -> None:
    save_idx(tmp_path, np.zeros((1, 28, 28)), np.zeros(1), stem="train")
    before = sorted(tmp_path.rglob("*"))
    refused(lambda: load("mnist", "test", data_dir=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("below", ["file", "file/below"])
def test_data_directory_that_cannot_be_written_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    data_dir = tmp_path / below
    assert str(data_dir) in refused(lambda: load("mnist", "test", data_dir=data_dir))


# Names


def test_table_is_in_display_order_under_its_own_names() -> None:
    assert list(DATASETS) == ["digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"]
    assert [spec.name for spec in DATASETS.values()] == list(DATASETS)


def test_unknown_dataset_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert "cifar10" in refused(lambda: load("cifar-10", "test", data_dir=tmp_path))


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_unknown_part_is_refused(tmp_path: Path, dataset: str) -> None:
    assert "'valid'" in refused(lambda: load(dataset, "valid", data_dir=tmp_path))
