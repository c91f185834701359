"""Image triples: drawn from the adversarial images that a run kept, and from nothing else."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.report.image_examples import ABOVE, BELOW, GAP, SHOWN, Broken, _broken, example_images
from benchmark.store.store import Store

WORDS = ("--models", "natural", "--attacks", "pgd-20", "--transfer", "none", "--examples", "40", "--quiet")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def results(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    assert command(folder, *WORDS, "--keep-images").returncode == 0
    return folder / "results/mine"


def test_a_triple_is_the_image_the_perturbation_and_the_adversarial_image(results: Path) -> None:
    png = example_images(Store(results / "runs"), "digits", ())["natural"]
    assert (results / "digits/examples/natural.png").read_bytes() == png
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(float)
    picture = picture[ABOVE:-BELOW]
    side = picture.shape[0] // 3
    assert picture.shape == (3 * side, SHOWN * side)
    clean, shift, broken = (picture[row * side : (row + 1) * side] for row in range(3))
    inside = np.s_[GAP : side - GAP, GAP : side - GAP]
    for column in range(SHOWN):
        at = np.s_[:, column * side : (column + 1) * side]
        x, delta, x_adv = (part[at][inside] / 255 for part in (clean, shift, broken))
        assert 0 < np.abs(x_adv - x).max() <= 0.2 + 1 / 255
        np.testing.assert_allclose(0.5 + (x_adv - x) / 0.4, delta, atol=0.01)  # epsilon 0.2; rounded to grey levels


def test_what_stands_beside_a_triple_is_what_the_verdicts_and_the_images_say(results: Path) -> None:
    store = Store(results / "runs")
    (entry,) = store.shown("digits").cases
    stored = store.read(entry.key, entry.n)
    assert stored is not None
    assert stored[0].adversarial_class is not None
    broken = _broken(store, entry)
    at = np.flatnonzero(stored[0].correct & ~stored[0].robust_any)[:SHOWN]
    assert [one.label for one in broken] == stored[0].label[at].tolist()
    assert [one.taken_for for one in broken] == stored[0].adversarial_class[at].tolist()
    assert all(0 <= one.taken_for != one.label for one in broken)
    assert all(one.distance("Linf") == pytest.approx(0.2, abs=1e-6) for one in broken)


def test_distances_are_of_the_norm() -> None:
    one = Broken(np.zeros((1, 2, 2), np.float32), np.array([[[3, 4], [0, 0]]], np.float32), 0, 1)
    assert (one.distance("Linf"), one.distance("L2")) == (4.0, 5.0)


def test_the_page_shows_them_where_the_row_opens(results: Path) -> None:
    text = (results / "digits/leaderboard.html").read_text()
    data = json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert data["rows"][0]["image"].startswith("data:image/png;base64,iVBOR")


def test_without_kept_images_there_are_none(command: Command, tmp_path: Path) -> None:
    assert command(tmp_path, *WORDS).returncode == 0
    assert not (tmp_path / "results/mine/digits/examples").exists()
    assert '"image"' not in (tmp_path / "results/mine/digits/leaderboard.html").read_text()
