"""The diagnose command: its table, its files, what it goes on from, and the flag in the suite's tables."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmark.report.diagnosis import short_diagnosis
from benchmark.store.diagnosis import Diagnosis, Finding, diagnosis_from
from benchmark.store.store import Store

Command = Callable[..., subprocess.CompletedProcess[str]]
WORDS = ("--models", "natural", "--attack", "pgd-20", "--examples", "8", "--workers", "1", "--quiet")
FAILING = Finding("transfer", "fails", 40.0, 3.0, 1e-9, 2e-8, "the attack natural breaks +40.0 points more")


@pytest.fixture(scope="module")
def ran(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a diagnosis, and what was printed."""
    folder = tmp_path_factory.mktemp("diagnosed")
    run = command(folder, "diagnose", *WORDS)
    assert run.returncode == 0, run.stderr
    return folder / "results/mine", run.stdout


def diagnosis(results: Path) -> Diagnosis:
    (one,) = Store(results / "runs").read_diagnoses("digits")
    return one


def test_a_row_a_check_with_one_of_three_outcomes(ran: tuple[Path, str]) -> None:
    table = pd.read_csv(ran[0] / "digits/diagnosis.csv", keep_default_na=False)
    assert list(table.columns)[:5] == ["model", "check", "outcome", "figure", "p"]
    assert set(table["model"]) == {"natural"}
    assert len(table) == len(set(table["check"])) == 23
    assert set(table["outcome"]) <= {"passes", "fails", "cannot-tell"}
    assert not (table["outcome"] == "fails").any()


def test_no_more_points_are_hidden_than_images_were_asked_for(ran: tuple[Path, str]) -> None:
    words = {finding.check: finding.measured for finding in diagnosis(ran[0]).findings}["binarization"]
    assert all(int(number) <= 8 for number in re.findall(r"of (\d+)", words)), words


def test_what_is_printed_fits_100_columns_and_says_what_it_cost(ran: tuple[Path, str]) -> None:
    assert max(len(line) for line in ran[1].splitlines() if "results" not in line) <= 100
    assert "Nothing speaks against pgd-20, Linf 0.2 on natural. " in ran[1]
    assert "Too few images, or nothing to measure: " in " ".join(ran[1].split())
    assert f"{diagnosis(ran[0]).forwards:,.0f} forward" in ran[1]


def test_its_runs_are_cases_of_the_store_that_no_table_shows(ran: tuple[Path, str]) -> None:
    store = Store(ran[0] / "runs")
    assert len(store.case_keys()) >= 13
    assert store.suites() == []
    assert store.diagnosed_suites() == ["digits"]


def test_a_diagnosis_is_what_was_stored(ran: tuple[Path, str]) -> None:
    one = diagnosis(ran[0])
    assert diagnosis_from(one.to_dict()) == replace(one, findings=tuple(one.findings))
    with pytest.raises(ValueError, match="KeyError"):
        diagnosis_from({"model": "natural"})


def test_it_goes_on_from_what_is_stored_and_table_rebuilds_the_same_bytes(
    command: Command, ran: tuple[Path, str]
) -> None:
    results = ran[0]
    files = {path: path.read_bytes() for path in (results / "digits").glob("diagnosis.*")}
    chunks = {path: path.stat().st_mtime_ns for path in (results / "runs/cases").rglob("*.parquet")}
    assert files
    for path in files:
        path.unlink()
    assert command(results.parents[1], "table").returncode == 0
    assert {path: path.read_bytes() for path in files} == files
    assert command(results.parents[1], "diagnose", *WORDS).returncode == 0
    assert {path: path.read_bytes() for path in files} == files
    assert {path: path.stat().st_mtime_ns for path in (results / "runs/cases").rglob("*.parquet")} == chunks


def test_a_model_on_which_the_attack_is_not_shown_to_work_is_flagged_in_the_tables_and_from_git(
    command: Command, ran: tuple[Path, str], tmp_path: Path
) -> None:
    words = ("--models", "natural,madry", "--attacks", "fgsm", "--transfer", "none", "--examples", "8", "--quiet")
    assert command(tmp_path, *words, "--workers", "1").returncode == 0
    results = tmp_path / "results/mine"
    failing = replace(diagnosis(ran[0]), findings=(FAILING,))
    Store(results / "runs").write_diagnosis("digits", failing)
    other = replace(failing, model="madry", network={**failing.network, "sha256": "0" * 64})
    Store(results / "runs").write_diagnosis("digits", other)  # of a network that had the name madry before
    for _ in ("from the store", "from packed verdicts"):
        assert command(tmp_path, "table").returncode == 0
        board = pd.read_csv(results / "digits/leaderboard.csv", keep_default_na=False).set_index("model")
        assert board.loc["natural", "flags"] == "not-shown(transfer)"
        assert board.loc["madry", "flags"] == ""
        assert "`not-shown`" in (results / "digits/leaderboard.md").read_text()
        (results / "runs").rename(tmp_path / "aside") if (results / "runs").exists() else None


def test_the_verdict_names_the_checks_that_fail(ran: tuple[Path, str]) -> None:
    failing = replace(diagnosis(ran[0]), findings=(FAILING,))
    assert "is not shown to work on natural: transfer." in short_diagnosis(failing, 100)
    assert failing.flags == ["not-shown(transfer)"]
    assert replace(failing, findings=()).flags == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attack", "square-500"), "asks of an attack by gradients whether it works, got square-500"),
        (("--attack", "pgd-20,pgd-40"), "takes one attack"),
        (("--attack", "pdg-20"), "pgd-20"),
    ],
)
def test_an_attack_that_it_cannot_diagnose_is_one_line(
    command: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    run = command(tmp_path, "diagnose", "--models", "natural", *words)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_damaged_record_is_named(command: Command, ran: tuple[Path, str], tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store.write_diagnosis("digits", diagnosis(ran[0]))
    (path,) = (tmp_path / "runs/diagnoses/digits").glob("*.json")
    path.write_text(path.read_text().replace('"passes"', '"fails"', 1))
    run = command(tmp_path, "table", "--results-dir", ".")
    assert run.returncode == 2
    assert path.name in run.stderr
