"""Other epsilons and seeds on the same images: their tables, and what the leaderboard still shows."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FIXED = ("--models", "natural,madry", "--attacks", "fgsm,pgd-20", "--transfer", "none", "--examples", "60", "--quiet")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def results(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epsilons; the suite's own last, so that the tables show it."""
    folder = tmp_path_factory.mktemp("epsilons")
    for epsilon in ("0.05", "0.1", "0.2"):
        assert command(folder, *FIXED, "--epsilon", epsilon).returncode == 0
    return folder / "results/mine"


def test_the_leaderboard_shows_the_newest_epsilon_alone(results: Path) -> None:
    assert set(pd.read_csv(results / "digits/scores.csv")["epsilon"]) == {0.2}


def test_robust_accuracy_against_epsilon_begins_clean_and_never_rises(results: Path) -> None:
    table = pd.read_csv(results / "digits/epsilon.csv")
    scores = pd.read_csv(results / "digits/scores.csv").set_index(["model", "attack"])
    for model, curve in table.groupby("model"):
        assert list(curve["epsilon"]) == [0.0, 0.05, 0.1, 0.2]
        assert (np.diff(curve["robust_acc"]) <= 0).all()
        assert curve["robust_acc"].iloc[0] == scores["clean_acc"][model, "fgsm"]
        assert curve["robust_acc"].iloc[-1] == scores["robust_acc"][model, curve["attack"].iloc[0]]


def test_packed_verdicts_of_the_other_epsilons_give_the_same_table(
    command: Command, results: Path, tmp_path: Path
) -> None:
    (tmp_path / "results/mine/verdicts").mkdir(parents=True)
    for path in (results / "verdicts").iterdir():
        (tmp_path / "results/mine/verdicts" / path.name).write_bytes(path.read_bytes())
    assert command(tmp_path, "table").returncode == 0
    again = tmp_path / "results/mine/digits"
    assert (again / "epsilon.csv").read_bytes() == (results / "digits/epsilon.csv").read_bytes()
    assert {path.stem for path in (again / "pictures").iterdir()} >= {"epsilon", "trade-off"}


def test_a_run_keeps_packed_selections_that_its_own_store_lacks(
    command: Command, results: Path, tmp_path: Path
) -> None:
    verdicts = tmp_path / "results/mine/verdicts"
    verdicts.mkdir(parents=True)
    before = {path.name: path.read_bytes() for path in (results / "verdicts").iterdir()}
    for name, content in before.items():
        (verdicts / name).write_bytes(content)
    assert command(tmp_path, *FIXED, "--epsilon", "0.2").returncode == 0
    others = {name for name in before if "@" in name}
    assert len(others) == 4
    assert all((verdicts / name).read_bytes() == before[name] for name in others)
    assert (tmp_path / "results/mine/digits/epsilon.csv").read_bytes() == (results / "digits/epsilon.csv").read_bytes()
    assert command(tmp_path, *FIXED, "--epsilon", "0.1").returncode == 0
    assert {path.name for path in verdicts.glob("*@*.json")} == {
        "digits@epsilon-0.05-seed-0.json",
        "digits@epsilon-0.2-seed-0.json",
    }


def test_packed_selections_of_other_images_or_networks_are_not_mixed_in(
    command: Command, results: Path, tmp_path: Path
) -> None:
    verdicts = tmp_path / "results/mine/verdicts"
    verdicts.mkdir(parents=True)
    for path in (results / "verdicts").iterdir():
        (verdicts / path.name).write_bytes(path.read_bytes())
    assert "of other images" in command(tmp_path, *FIXED, "--examples", "40").stderr
    (verdicts / "digits.json").unlink()
    assert command(tmp_path, *FIXED, "--examples", "40").returncode == 0
    assert not list(verdicts.glob("*@*"))
    assert not (tmp_path / "results/mine/digits/epsilon.csv").exists()


def test_seeds_of_the_attack_have_a_mean_and_a_standard_deviation(command: Command, tmp_path: Path) -> None:
    words = ("--models", "madry", "--attacks", "pgd-20", "--transfer", "none", "--quiet")
    found = []
    for seed in (1, 2, 0):
        assert command(tmp_path, *words, "--seed", seed).returncode == 0
        found.append(pd.read_csv(tmp_path / "results/mine/digits/scores.csv")["robust_acc"][0])
    table = pd.read_csv(tmp_path / "results/mine/digits/seeds.csv", keep_default_na=False)
    (line,) = table.to_dict("records")
    assert (line["model"], line["attack"], line["seeds"]) == ("madry", "pgd-20", 3)
    assert line["mean"] == pytest.approx(np.mean(found), abs=1e-4)
    assert line["std"] == pytest.approx(np.std(found, ddof=1), abs=1e-4)


def test_one_seed_and_one_epsilon_have_no_such_tables(command: Command, tmp_path: Path) -> None:
    assert command(tmp_path, *FIXED).returncode == 0
    assert not (tmp_path / "results/mine/digits/seeds.csv").exists()
    assert not (tmp_path / "results/mine/digits/epsilon.csv").exists()
