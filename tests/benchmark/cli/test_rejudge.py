"""FoundPoints images are what the verdicts were made of, and whoever has them can judge them again."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attacks.errors import InputError
from benchmark import kept_images
from benchmark.data.datasets import load
from benchmark.data.split import Split
from benchmark.store.chunk import checksum
from benchmark.store.images import unpack_images
from benchmark.store.store import Store

Command = Callable[..., subprocess.CompletedProcess[str]]
ATTACKS = "fgsm,pgd-20,pgd-40,foolbox-deepfool,autoattack-brief"
WORDS = ("--models", "natural,madry", "--attacks", ATTACKS, "--transfer", "fgsm", "--examples", "40", "--quiet")


@pytest.fixture(scope="module")
def kept(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that kept its images."""
    folder = tmp_path_factory.mktemp("kept")
    result = command(folder, *WORDS, "--keep-images")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def unkept(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same sweep without them."""
    folder = tmp_path_factory.mktemp("unkept")
    assert command(folder, *WORDS).returncode == 0
    return folder


def verdicts(folder: Path) -> dict[str, object]:
    return {path.parent.name: pq.read_table(path).to_pydict() for path in folder.rglob("*.parquet")}


def test_keeping_images_changes_no_verdict(kept: Path, unkept: Path) -> None:
    assert verdicts(unkept) == verdicts(kept)
    assert not list(unkept.rglob("*.npz"))


def test_kept_images_are_judged_again_to_the_same_verdicts_by_the_model_alone(command: Command, kept: Path) -> None:
    result = command(kept, "store", "rejudge")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("40 images, 0 verdicts differ") == 12
    assert "12 cases judged again, 0 with faults" in result.stdout


def test_one_call_reads_the_kept_images_of_a_case(kept: Path) -> None:
    images = kept_images(kept / "results/mine", "madry", "fgsm", source="natural")
    assert {name: (array.dtype.name, array.shape) for name, array in images.items()} == {
        "index": ("int64", (40,)),
        "y": ("int64", (40,)),
        "x": ("float32", (40, 1, 8, 8)),
        "x_adv": ("float32", (40, 1, 8, 8)),
    }
    split = load("digits", "test", data_dir=Path("unused"))
    np.testing.assert_array_equal(split.x[images["index"]], images["x"])
    distance = np.abs(images["x_adv"] - images["x"]).max()
    assert 0.19 < distance < 0.2 + 1e-6


@pytest.mark.parametrize(
    ("model", "attack", "expected"),
    [("mart", "fgsm", "expected fgsm on mart in the tables of digits, found madry under"), ("madry", "fgsm", "--keep")],
)
def test_images_that_nobody_kept_are_refused(
    kept: Path, tmp_path: Path, model: str, attack: str, expected: str
) -> None:
    shutil.copytree(kept / "results/mine/runs", tmp_path / "runs", ignore=shutil.ignore_patterns("*.npz"))
    with pytest.raises(InputError, match=expected):
        kept_images(tmp_path, model, attack)


def test_images_of_a_finished_sweep_are_kept_when_they_are_asked_for(
    command: Command, kept: Path, unkept: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(unkept, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert command(folder, *WORDS, "--keep-images").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == before
    files = [{path.name for path in folder.rglob("*.npz")} for folder in (folder, kept)]
    assert files[0] == files[1]
    assert len(files[0]) > 1


def forge(path: Path, **changes: np.ndarray) -> None:
    """Other arrays in a file of kept images, with the checksum that belongs to them."""
    arrays = {**unpack_images(path), **changes}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    path.rename(path.with_name(f"{path.name.split('.')[0]}.{checksum(path.read_bytes())}.npz"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: {"x_adv": arrays["x"]}, "verdicts differ"),
        (lambda arrays: {"x_adv": 1 - arrays["x"]}, "outside the threat model"),
        (lambda arrays: {"y": arrays["y"][::-1]}, "are not those of the verdicts"),
        (lambda arrays: {"x": 0.999 * arrays["x"] + 0.001 * arrays["x_adv"]}, "not those that the case attacked"),
        (lambda arrays: {"x_adv": arrays["x_adv"][:3]}, "images of several shapes"),
        (lambda arrays: {"x_adv": arrays["x_adv"].astype(np.float64)}, "not float32"),
        (lambda arrays: {"x_adv": arrays["x_adv"] * np.nan}, "outside the threat model"),
    ],
)
def test_images_that_do_not_show_what_is_claimed_are_found(
    command: Command, tmp_path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], words: str
) -> None:
    few = ("--models", "natural", "--attacks", "pgd-20", "--examples", "20", "--quiet", "--keep-images")
    assert command(tmp_path, *few).returncode == 0
    (path,) = tmp_path.rglob("*.npz")
    forge(path, **change(unpack_images(path)))
    result = command(tmp_path, "store", "rejudge")
    assert result.returncode == 1
    assert words in result.stdout
    assert " 0 verdicts differ" not in result.stdout


def test_damaged_images_are_named(command: Command, tmp_path: Path) -> None:
    few = ("--models", "natural", "--attacks", "fgsm", "--examples", "20", "--quiet", "--keep-images")
    assert command(tmp_path, *few).returncode == 0
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:-9])
    result = command(tmp_path, "store", "rejudge")
    assert result.returncode == 1
    assert "damaged: its content is not what its name says" in result.stdout


def test_a_store_without_images_is_a_mistake(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "store", "rejudge")
    assert result.returncode == 2
    assert "run the benchmark with --keep-images" in result.stderr


def test_a_damaged_file_of_images_is_found_removed_and_kept_again(command: Command, kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    path = sorted((tmp_path / "copy").rglob("*.npz"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    verified = command(tmp_path / "copy", "store", "verify", "--quiet")
    assert (verified.returncode, f"{path.name}: damaged" in verified.stdout) == (1, True), verified.stdout
    assert command(tmp_path / "copy", "table").returncode == 0
    again = command(tmp_path / "copy", *WORDS, "--keep-images")
    assert again.returncode == 0, again.stderr
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1] + b"x")
    assert "1 removed" in command(tmp_path / "copy", "store", "gc", "--quiet").stdout
    assert command(tmp_path / "copy", *WORDS, "--keep-images").returncode == 0
    assert path.read_bytes() == whole


def test_images_that_are_there_are_not_kept_a_second_time(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "copy")
    path = sorted((tmp_path / "copy").rglob("*.npz"))[0]
    arrays = {name: torch.from_numpy(array) for name, array in unpack_images(path).items()}
    images = Split("digits", "test", arrays["x"], arrays["y"], arrays["index"], 10)
    Store(path.parents[2]).write_images(path.parent.name, (0, 40), images, arrays["x_adv"] * 0.999)
    assert sorted(path.parent.glob("*.npz")) == [path]


@pytest.mark.parametrize("place", [4, 8])
def test_an_archive_of_an_unknown_kind_is_damaged(command: Command, kept: Path, tmp_path: Path, place: int) -> None:
    """Found by fuzzing: a compression or a version that zipfile does not know."""
    shutil.copytree(kept, tmp_path / "copy")
    path = sorted((tmp_path / "copy").rglob("*.npz"))[0]
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = content.find(signature) + place + offset
        content[at : at + 2] = (99).to_bytes(2, "little")
    path.unlink()
    path.with_name(f"{path.name.split('.')[0]}.{checksum(bytes(content))}.npz").write_bytes(content)
    verified = command(tmp_path / "copy", "store", "verify", "--quiet")
    assert (verified.returncode, "no kept images (NotImplementedError)" in verified.stdout) == (1, True)
