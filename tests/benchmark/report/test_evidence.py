"""The verdicts that are packed beside the tables: a fresh clone rebuilds every published table from them."""

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.gate.baseline import read_baseline
from benchmark.gate.canaries import canary_name
from benchmark.store.packed import read_packed
from model_zoo.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
WORDS = ("--models", "natural,madry", "--attacks", "fgsm,pgd-20,foolbox-deepfool", "--examples", "30", "--quiet")
Command = Callable[..., subprocess.CompletedProcess[str]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep and its tables; each test has a copy of it."""
    folder = tmp_path_factory.mktemp("made")
    assert command(folder, *WORDS).returncode == 0
    assert command(folder, "table").returncode == 0
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy") / "results/mine"


def test_without_the_store_the_packed_verdicts_give_the_same_files(command: Command, results: Path) -> None:
    before = files(results / "digits")
    shutil.rmtree(results / "runs")
    for path in (results / "digits").iterdir():
        if path.name != "timing.csv":  # whose times nothing else holds
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = command(results.parents[1], "table")
    assert (again.returncode, again.stderr) == (0, "")
    assert files(results / "digits") == before


def test_the_store_gives_tables_and_packed_verdicts_back_after_both_are_deleted(
    command: Command, results: Path
) -> None:
    before = files(results / "digits") | files(results / "verdicts")
    shutil.rmtree(results / "digits")
    shutil.rmtree(results / "verdicts")
    assert command(results.parents[1], "table").returncode == 0
    assert files(results / "digits") | files(results / "verdicts") == before


def test_damaged_packed_verdicts_are_one_line_that_names_them(command: Command, results: Path) -> None:
    shutil.rmtree(results / "runs")
    path = results / "verdicts/digits.bin"
    path.write_bytes(path.read_bytes()[:-1])
    result = command(results.parents[1], "table")
    assert result.returncode == 2
    assert result.stderr.startswith(
        "error: results/mine/verdicts/digits.bin: not the file that digits.json was written"
    )
    assert result.stderr.count("\n") == 1


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn as SVG alone, without a layout, which takes most of the time."""
    savefig = Figure.savefig

    def quickly(figure: Figure, file: io.BytesIO, *, format: str, **options: Any) -> None:
        figure.set_layout_engine("none")
        if format == "svg":
            savefig(figure, file, format=format, **options)

    monkeypatch.setattr(Figure, "savefig", quickly)


@pytest.mark.usefixtures("drawn_once")
def test_the_committed_tables_are_those_of_the_committed_verdicts(command: Command, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results/verdicts", tmp_path / "results/mine/verdicts")
    for path in (ROOT / "results").glob("*/timing.csv"):
        (tmp_path / "results/mine" / path.parent.name).mkdir()
        shutil.copy(path, tmp_path / "results/mine" / path.parent.name)
    assert command(tmp_path, "table").returncode == 0
    for packed in (path for path in (ROOT / "results/verdicts").glob("*.json") if "@" not in path.name):
        rebuilt, committed = (files(folder / packed.stem) for folder in (tmp_path / "results/mine", ROOT / "results"))
        others = {name for name in committed if name.startswith(("baseline.", "corruptions."))}  # of other commands
        assert set(rebuilt) == set(committed) - others
        for name, content in committed.items():
            if name in rebuilt and not name.startswith(
                "pictures/"
            ):  # whose bytes are those of one version of matplotlib
                assert rebuilt[name] == content, name


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/baseline.json")), ids=lambda path: path.parent.name)
def test_a_committed_baseline_is_of_the_models_that_are_shipped(path: Path) -> None:
    known = read_baseline(path)
    shipped = {spec.name: spec.sha256 for spec in MODELS if known.settings.suite in spec.suites}
    of_canaries = {canary_name(kind): model for kind, model in known.canaries.items()}
    for name, case in known.cases.items():
        assert case.entry.checkpoint_sha256 == shipped[of_canaries.get(name, name)], name
    cards = (ROOT / "model_zoo/checkpoints" / known.settings.suite).glob("*.json")
    assert {card.stem for card in cards} == set(known.cases) - set(of_canaries)


def test_rows_that_the_store_lacks_stay_in_published_tables(command: Command, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results/verdicts", tmp_path / "results/verdicts")
    before = pd.read_csv(ROOT / "results/digits/scores.csv")
    words = ("--models", "natural", "--attacks", "fgsm,apgd-ce", "--transfer", "none", "--quiet")
    result = command(tmp_path, *words, "--results-dir", "results")
    assert result.returncode == 0, result.stderr
    assert f"note: {len(before) - 1} rows are those of results/verdicts/digits.json" in result.stderr
    after = pd.read_csv(tmp_path / "results/digits/scores.csv")
    cells = ["model", "attack", "source_model"]
    added = after.merge(before[cells], on=cells, how="left", indicator=True).query("_merge == 'left_only'")
    assert list(zip(added["model"], added["attack"], strict=True)) == [("natural", "apgd-ce")]
    assert list(after.merge(before, on=cells)["robust_acc_x"]) == list(before["robust_acc"])


def test_a_run_of_which_no_case_is_complete_leaves_the_packed_rows_in_the_tables(
    command: Command, made: Path, results: Path
) -> None:
    shutil.rmtree(results)
    begun = (*WORDS[:3], "mi-fgsm", *WORDS[4:])
    assert command(results.parents[1], *begun).returncode == 0
    for chunk in results.glob("runs/cases/*/*.parquet"):
        chunk.unlink()
    for name in ("digits", "verdicts"):
        shutil.rmtree(results / name)
        shutil.copytree(made / "results/mine" / name, results / name)
    again = command(results.parents[1], "table")
    assert again.returncode == 0
    assert "left out of digits: " in again.stderr
    assert files(results / "digits") == files(made / "results/mine/digits")


def test_a_run_at_another_epsilon_loses_no_published_row(command: Command, tmp_path: Path) -> None:
    verdicts = tmp_path / "results/verdicts"
    shutil.copytree(ROOT / "results/verdicts", verdicts)
    paths = [verdicts / "digits.json", *verdicts.glob("digits@*.json")]
    before = {path: set(read_packed(path).cases) for path in paths}
    assert len(before) > 1
    words = ("--models", "natural", "--attacks", "fgsm", "--transfer", "none", "--quiet", "--results-dir", "results")
    for epsilon in ("0.07", "0.2"):  # away, and back to that of the published tables
        result = command(tmp_path, *words, "--epsilon", epsilon, "--examples", "all")
        assert result.returncode == 0, result.stderr
    assert {path: set(read_packed(path).cases) for path in paths} == before
    assert len(read_packed(verdicts / "digits@epsilon-0.07-seed-0.json").cases) == 1


def test_a_run_on_fewer_images_is_refused_where_the_store_has_but_some_of_the_published_rows(
    command: Command, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "results/verdicts", tmp_path / "results/verdicts")
    words = ("--models", "natural", "--attacks", "fgsm", "--transfer", "none", "--quiet", "--results-dir", "results")
    assert command(tmp_path, *words).returncode == 0
    before = files(tmp_path / "results")
    result = command(tmp_path, *words, "--examples", "20")
    assert result.returncode == 2
    n = len(read_packed(tmp_path / "results/verdicts/digits.json").cases)
    assert f"would lose {n - 1} of their {n} rows" in result.stderr
    assert files(tmp_path / "results") == before


def test_a_run_on_other_images_is_refused_where_published_tables_would_be_lost(
    command: Command, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "results/verdicts", tmp_path / "results/verdicts")
    before = files(tmp_path / "results")
    words = ("--models", "natural", "--attacks", "fgsm", "--transfer", "none", "--norm", "L2", "--epsilon", "0.5")
    result = command(tmp_path, *words, "--results-dir", "results", "--quiet")
    assert result.returncode == 2
    assert "the tables in results/digits are of other images or another norm" in result.stderr
    assert files(tmp_path / "results") == before
    assert command(tmp_path, *words, "--quiet").returncode == 0


def test_a_run_whose_attacks_all_see_a_part_of_the_images_keeps_published_rows(
    command: Command, tmp_path: Path
) -> None:
    words = ("--models", "natural", "--transfer", "none", "--quiet", "--results-dir", "results")
    for attack, examples in (("fgsm", "500,fgsm=50"), ("apgd-ce", "500,apgd-ce=60"), ("pgd-20", "500")):
        result = command(tmp_path, *words, "--attacks", attack, "--examples", examples)
        assert result.returncode == 0, result.stderr
        shutil.rmtree(tmp_path / "results/runs")
    scores = pd.read_csv(tmp_path / "results/digits/scores.csv")
    assert list(zip(scores["attack"], scores["n"], strict=True)) == [("fgsm", 50), ("pgd-20", 500), ("apgd-ce", 60)]
    result = command(tmp_path, *words, "--attacks", "fgsm", "--examples", "50")
    assert result.returncode == 2
    assert "are of other images" in result.stderr
