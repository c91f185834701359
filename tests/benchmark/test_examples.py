"""One suite, attacks on different numbers of images: each row says how many, and worst cases are over common ones."""

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmark.choices import with_examples
from benchmark.score import read_suite
from benchmark.store import Store
from benchmark.suites import SUITES

WORDS = ("--models", "natural,trades-b1", "--attacks", "fgsm,pgd-20", "--transfer", "fgsm", "--quiet")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def results(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fgsm on 60 images, pgd-20 on 40, transfer on 20."""
    folder = tmp_path_factory.mktemp("different")
    result = command(folder, *WORDS, "--examples", "60,pgd-20=40,transfer=20")
    assert result.returncode == 0, result.stderr
    return folder / "results"


def test_every_row_says_how_many_images_its_attack_saw(results: Path) -> None:
    scores = pd.read_csv(results / "digits/scores.csv", keep_default_na=False)
    seen = {(row.attack, row.source_model != ""): row.n for row in scores.itertuples()}
    assert seen == {("fgsm", False): 60, ("pgd-20", False): 40, ("fgsm", True): 20}


def test_the_worst_case_is_over_the_images_that_all_attacks_saw(results: Path) -> None:
    suite = read_suite(Store(results / "runs"), "digits")
    for model, worst in suite.worst.items():
        own = [judged for entry, judged in zip(suite.entries, suite.judged, strict=True) if entry["model"] == model]
        assert len(suite.shared[model]) == len(worst) == 20
        for image, robust in zip(suite.shared[model], worst, strict=True):
            verdicts = [judged.robust[list(judged.index).index(image)] for judged in own]
            assert robust == all(verdicts)
    board = pd.read_csv(results / "digits/leaderboard.csv")
    assert set(board["n"]) == {20}


def test_the_tables_say_which_attacks_saw_a_part_of_the_images(results: Path) -> None:
    for name in ("leaderboard", "white_box", "black_box"):
        text = (results / f"digits/{name}.md").read_text()
        assert "60 test images (pgd-20 on 40, fgsm by transfer on 20 of them)" in text
    assert "on those n images that all of them have seen" in (results / "digits/leaderboard.md").read_text()


def test_fewer_images_are_a_part_of_the_others_and_the_same_as_of_a_run_by_itself(
    command: Command, results: Path, tmp_path: Path
) -> None:
    words = ("--models", "natural", "--attacks", "pgd-20", "--transfer", "none", "--quiet")
    assert command(tmp_path, *words, "--examples", "40").returncode == 0
    (alone,) = read_suite(Store(tmp_path / "results/runs"), "digits").entries
    mixed = read_suite(Store(results / "runs"), "digits")
    keys = {entry["key"] for entry in mixed.entries if (entry["model"], entry["attack"]) == ("natural", "pgd-20")}
    assert keys == {alone["key"]}
    indices = sorted((set(judged.index.tolist()) for judged in mixed.judged), key=len)
    assert indices[0] < indices[-1]
    assert all(small <= large for small, large in itertools.pairwise(indices))


def test_a_model_whose_worst_case_is_over_fewer_images_than_others_is_flagged(command: Command, tmp_path: Path) -> None:
    words = ("--attacks", "fgsm,pgd-20", "--transfer", "none", "--quiet", "--examples")
    assert command(tmp_path, "--models", "natural", *words, "60").returncode == 0
    assert command(tmp_path, "--models", "trades-b1", *words, "60,pgd-20=30").returncode == 0
    board = pd.read_csv(tmp_path / "results/digits/leaderboard.csv", keep_default_na=False).set_index("model")
    assert board["n"].to_dict() == {"natural": 60, "trades-b1": 30}
    assert board["flags"].to_dict() == {"natural": "", "trades-b1": "fewer-images"}


def test_numbers_of_images_are_for_all_attacks_or_for_one_of_them() -> None:
    mnist = SUITES["mnist"]

    def sizes(examples: dict[str, int | None]) -> list[int | None]:
        suite = with_examples(mnist, examples)
        wanted = [("pgd-20", False), ("autoattack", False), ("pgd-20", True)]
        return [suite.examples, *(suite.examples_for(name, is_transfer=via) for name, via in wanted)]

    assert sizes({}) == [None, None, 1000, 1000]
    assert sizes({"": 500}) == [500, None, None, None]
    assert sizes({"autoattack": 2000}) == [None, None, 2000, 1000]
    assert sizes({"autoattack": None}) == [None, None, None, 1000]
    assert sizes({"": None, "transfer": 100}) == [None, None, None, 100]
