"""--data: a user's own model on a user's own images, from the folder to the tables."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.store.packed import read_packed
from benchmark.suites.registry import own_suite
from model_zoo.registry import SHIPPED

Command = Callable[..., subprocess.CompletedProcess[str]]
SHADES = {"bright": 0.75, "dark": 0.25, "mid": 0.5}
FACTORY = '''
import torch
from torch import nn

class ByShade(nn.Module):
    """The class of the shade that is nearest to the mean of an image: classes lie 0.25 apart."""

    def forward(self, x):
        return -50 * (x.mean((1, 2, 3))[:, None] - torch.tensor(SHADES)) ** 2
'''
CONVOLUTION = '''
import torch
from torch import nn

def make():
    """A thousand logits: at three places that of the shade which is nearest to the mean of an image, else -1000."""
    convolution = nn.Conv2d(3, 1000, 1)
    nn.init.zeros_(convolution.weight)
    nn.init.constant_(convolution.bias, -1000)
    with torch.no_grad():
        for place, shade in PLACES.items():
            convolution.weight[place] = 100 * shade / 3
            convolution.bias[place] = -50 * shade**2
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''
PLACES = {"bright": 404, "dark": 980, "mid": 17}
"""Of three classes among a thousand, in another order than their names have."""


def factory(folder: Path, shades: list[float], file: str = "net.py") -> None:
    text = f"SHADES = {shades}\n{FACTORY}\n\ndef make():\n    return ByShade()\n"
    (folder / file).write_text(text)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four pictures a class, JPEG and PNG of two sizes, evenly grey."""
    for name, shade in SHADES.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, suffix in enumerate((".png", ".jpg", ".png", ".jpg")):
            grey = np.full((20 + 4 * (i % 2), 20, 3), round(255 * shade), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "photos" / name / f"{i}{suffix}", quality=95)
    return tmp_path


def run(command: Command, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    fixed = ("--model", "net.py:make", "--data", "photos", "--image-size", "16", "--attacks", "pgd-20", "--quiet")
    return command(folder, *fixed, *words)


def scores(folder: Path, suite: str = "photos") -> pd.DataFrame:
    return pd.read_csv(folder / "results/mine" / suite / "scores.csv")


@pytest.mark.parametrize(("epsilon", "robust"), [("0.12", 100.0), ("0.14", 0.0)])
@pytest.mark.parametrize("workers", [1, 2])
def test_robust_accuracy_on_own_images_is_what_the_model_is_known_to_have(
    command: Command, photos: Path, epsilon: str, robust: float, workers: int
) -> None:
    factory(photos, [SHADES[name] for name in sorted(SHADES)])
    result = run(command, photos, "--epsilon", epsilon, "--workers", workers)
    assert result.returncode == 0, result.stderr
    (row,) = scores(photos).to_dict("records")
    assert (row["model"], row["dataset"], row["n"]) == ("make", "photos", 12)
    assert (row["clean_acc"], row["robust_acc"]) == (100.0, robust)
    again = run(command, photos, "--epsilon", epsilon, "--workers", workers)
    assert again.returncode == 0
    about = pd.read_csv(photos / "results/mine/photos/images.csv")
    assert about.iloc[5].to_list() == [5, str(Path("dark/1.jpg")), 1, "dark"]
    assert (photos / "results/mine/photos/classes.txt").read_text() == "bright\ndark\nmid\n"
    page = (photos / "results/mine/photos/leaderboard.html").read_text()
    assert '"classes":["bright","dark","mid"]' in page
    assert ('"5":"dark/1.jpg"' in page) == (robust == 0)
    (photos / "photos/dark/0.png").write_bytes((photos / "photos/mid/0.png").read_bytes())
    assert run(command, photos, "--epsilon", epsilon, "--workers", workers).returncode == 0
    assert scores(photos)["clean_acc"].item() == pytest.approx(100 * 11 / 12, abs=1e-3)


def test_folders_of_some_of_the_classes(command: Command, photos: Path) -> None:
    names = ["none", "mid", "bright", "other", "dark"]
    (photos / "names.txt").write_text("\n".join(names))
    factory(photos, [SHADES.get(name, 9.0) for name in names])
    result = run(command, photos, "--epsilon", "0.01", "--classes", "names.txt", "--examples", "6")
    assert result.returncode == 0, result.stderr
    assert scores(photos)[["n", "clean_acc"]].values.tolist() == [[6, 100.0]]
    without = run(command, photos, "--epsilon", "0.01")
    assert without.returncode == 2
    assert "expected logits of shape (12, 3) (one a class of photos), got (12, 5)" in without.stderr
    assert "--classes" in without.stderr


def test_own_classes_under_a_suite_that_exists_are_not_called_as_its_own(command: Command, photos: Path) -> None:
    """Nor is the suite's undefended model, which has ten of them, a source of transfer."""
    factory(photos, [SHADES[name] for name in sorted(SHADES)])
    words = ("--suite", "cifar10", "--epsilon", "0.14", "--image-size", "32", "--transfer", "pgd-20")
    result = run(command, photos, *words)
    assert result.returncode == 0, result.stderr
    assert "note: the models of cifar10 take other images or classes" in result.stderr
    assert '"classes":["bright","dark","mid"]' in (photos / "results/mine/cifar10/leaderboard.html").read_text()


def test_own_images_under_a_suite_that_exists_have_its_threat_model_and_models(
    command: Command, tmp_path: Path
) -> None:
    test = load("digits", "test", data_dir=tmp_path)
    np.savez(tmp_path / "some.npz", x=test.x[:50, 0].numpy(), y=test.y[:50].numpy())
    words = ("--suite", "digits", "--models", "madry", "--attacks", "fgsm", "--transfer", "none", "--quiet")
    assert command(tmp_path, *words, "--data", "some.npz").returncode == 0
    own = scores(tmp_path, "digits").iloc[0]
    assert command(tmp_path, *words, "--examples", "all").returncode == 0
    whole = scores(tmp_path, "digits").iloc[0]
    assert (own["n"], own["epsilon"], own["checkpoint_sha256"]) == (50, whole["epsilon"], whole["checkpoint_sha256"])
    assert whole["n"] == 500
    assert own["clean_acc"] != whole["clean_acc"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--data photos needs --epsilon"),
        (["--epsilon", "0.1", "--image-size", "16:8"], "expected pixels such as 224, or 224:256"),
        (["--epsilon", "0.1", "--image-size", "x"], "expected pixels such as 224"),
        (["--epsilon", "0.1", "--channels", "2"], "--channels must be 1 (grey levels) or 3 (RGB), got 2"),
        (["--epsilon", "0.1", "--data", "nowhere"], "expected a folder or an .npz at nowhere, found none"),
        (["--epsilon", "0.1", "--suite", "cifar11"], "cifar11"),
    ],
)
def test_mistakes_are_one_line(command: Command, photos: Path, words: list[str], says: str) -> None:
    factory(photos, [0.1, 0.2, 0.3])
    result = run(command, photos, *words)
    assert result.returncode == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "digits", "runs", "verdicts", "photos"])
def test_a_folder_that_is_called_as_something_else_is_not_taken_for_it(name: str) -> None:
    suite = own_suite(name, ThreatModel("Linf", 0.1))
    assert suite.name == suite.dataset == ("photos" if name == "photos" else f"own-{name}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--suite", "imagenet"), "suite imagenet is of images that you bring along; name their folder by --data"),
        (("--skip-broken", "1"), "are for images of --data; leave them out"),
    ],
)
def test_options_of_own_images_without_any(command: Command, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = command(tmp_path, "--models", "all", *words)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr


def test_the_gate_compares_own_models_on_own_images(command: Command, photos: Path) -> None:
    factory(photos, [SHADES[name] for name in sorted(SHADES)])
    own = ("--baseline", "b.json", "--model", "net.py:make", "--image-size", "16", "--quiet")
    words = ("--data", "photos", "--epsilon", "0.12", "--attack", "pgd-20")
    few = command(photos, "gate", "update", *own[2:], "--baseline", "few.json", *words, "--examples", "6")
    assert "pgd-20 on 6 images" in few.stdout
    recorded = command(photos, "gate", "update", *own, *words)
    assert recorded.returncode == 0, recorded.stderr
    assert "1 model, 0 canaries, pgd-20 on 12 images" in recorded.stdout
    passed = command(photos, "gate", *own, "--data", "photos")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    without = command(photos, "gate", "--baseline", "b.json", "--model", "net.py:make")
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "the baseline is of suite photos, images that you bring along; name them by --data" in without.stderr
    (photos / "photos/dark/0.png").write_bytes((photos / "photos/mid/0.png").read_bytes())
    changed = command(photos, "gate", *own, "--data", "photos")
    assert changed.returncode == 2
    assert "are not those of the baseline" in changed.stderr
    factory(photos, [0.75, 0.35, 0.45], "worse.py")  # where the dark end and the mid begin is near
    (photos / "photos/dark/0.png").write_bytes((photos / "photos/dark/2.png").read_bytes())
    worse = [word.replace("net.py", "worse.py") for word in own]
    failed = command(photos, "gate", *worse, "--data", "photos", "--tolerance", "0", "--alpha", "0.1")
    assert failed.returncode == 1
    assert "--data photos --image-size 16:16" in failed.stdout


def test_a_model_on_own_images_under_a_suite_is_recorded_anew_by_the_printed_command(
    command: Command, tmp_path: Path
) -> None:
    test = load("digits", "test", data_dir=tmp_path)
    np.savez(tmp_path / "some.npz", x=test.x[:100, 0].numpy(), y=test.y[:100].numpy())
    (tmp_path / "net.py").write_text(
        "from model_zoo.architectures.registry import build\n\ndef make():\n    return build('digits-cnn', 10)\n"
    )
    own = ("--baseline", "b.json", "--model", "net.py:make", "--data", "some.npz", "--quiet")
    madry, natural = (("--checkpoint", SHIPPED / f"digits/{name}.safetensors") for name in ("madry", "natural"))
    words = ("--suite", "digits", "--attack", "pgd-20", "--canaries", "none")
    assert command(tmp_path, "gate", "update", *own, *madry, *words).returncode == 0
    failed = command(tmp_path, "gate", *own, *natural)
    assert failed.returncode == 1
    renew = shlex.split(failed.stdout.partition("If that is meant, record it: ")[2].splitlines()[0])
    again = command(tmp_path, *renew[2:], "--quiet")
    assert again.returncode == 0, again.stderr
    assert command(tmp_path, "gate", *own, *natural).returncode == 0


def test_three_folders_of_a_thousand_classes_are_labelled_by_their_places_in_the_file(
    command: Command, tmp_path: Path
) -> None:
    """By a convolution whose logits are apart only where the class file puts the three, in no order of names."""
    names = [f"class-{number:03d}" for number in range(1000)]
    for name, place in PLACES.items():
        names[place] = name
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, suffix in enumerate((".jpg", ".png", ".JPEG", ".png", ".jpg")):
            size = (25 + 7 * number, 31 + 2 * number, 3)
            pixels = np.full(size, round(255 * SHADES[name]), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}{suffix}")
    (tmp_path / "names.txt").write_text("\n".join(names))
    shades = {place: SHADES[name] for name, place in PLACES.items()}
    (tmp_path / "net.py").write_text(f"PLACES = {shades}\n{CONVOLUTION}")
    words = ("--model", "net.py:make", "--data", "photos", "--image-size", "24", "--classes", "names.txt")
    result = command(tmp_path, *words, "--epsilon", "0.01", "--attacks", "fgsm,pgd-20", "--quiet")
    assert result.returncode == 0, result.stderr
    rows = scores(tmp_path)
    assert list(rows["attack"]) == ["fgsm", "pgd-20"]
    assert set(rows["n"]) == {15}
    assert set(rows["clean_acc"]) == set(rows["robust_acc"]) == {100.0}
    packed = read_packed(tmp_path / "results/mine/verdicts/photos.json")
    stored = [packed.read(case.key, case.n) for case in packed.shown("photos").cases]
    assert len(stored) == 2
    for verdicts, _ in filter(None, stored):
        assert verdicts.label.tolist() == [404] * 5 + [980] * 5 + [17] * 5
        assert verdicts.prediction.tolist() == verdicts.label.tolist()
