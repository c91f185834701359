"""Scores to tables: what each shows, and that the store alone gives them, byte for byte."""

import io
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.score import COLUMNS, SuiteScores, score_suite
from benchmark.report.tables import write_tables
from benchmark.report.tiers import BLACK_BOX
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.published import Figure, Row
from model_zoo.model_spec import ModelSpec

TIMING = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "versions": "torch=2"}
NATURAL = ModelSpec(
    "natural",
    suites=("digits",),
    dataset="digits",
    architecture="digits-cnn",
    defense="natural",
    checkpoint="digits/natural.safetensors",
    sha256="a" * 64,
)
MADRY = replace(NATURAL, name="madry", defense="madry", sha256="b" * 64)
ROWS = [Row("digits", "AT", ["madry"], "digits-cnn", "")]
FIGURES = [
    Figure("digits", "AT", "clean", [], 91.0, None, 10, "Table 1", "unverified", ""),
    Figure("digits", "AT", "pgd-20", [], 45.5, None, 10, "Table 1", "unverified", ""),
]
Command = Callable[..., subprocess.CompletedProcess[str]]
Result = tuple[ModelSpec, str, ModelSpec, int, int | None]  # judged, attack, source, robust by any and by last iterate


def suite_of(
    folder: Path, results: Sequence[Result], *, reading: str = "any", correct: int = 9, flags: Sequence[str] = ()
) -> SuiteScores:
    """The scores of cases on ten images, of which the first so many are robust."""
    store, first, cases = Store(folder), np.arange(10), []
    for model, attack, source, robust, last in results:
        threat = ThreatModel("Linf", 0.2)
        case = EvalCase("digits", "digits", "c" * 64, 10, model, source, ATTACKS[attack], threat, 0)
        verdicts = Verdicts(
            index=first,
            label=np.ones(10, dtype=np.int64),
            prediction=(first < correct).astype(np.int64),
            robust_any=first < robust,
            robust_last=None if last is None else first < last,
            forwards=np.full(10, 21.0),
            backwards=np.full(10, 20.0),
        )
        store.write_case(case_key(case), {"flags": list(flags)})
        store.write_chunk(case_key(case), (0, 10), verdicts, TIMING)
        cases.append(case)
    show(store, "digits", reading, cases, [(rank,) for rank in range(len(cases))])
    return score_suite(store, "digits")


BOTH: Sequence[Result] = (
    (NATURAL, "fgsm", NATURAL, 3, 4),
    (NATURAL, "pgd-20", NATURAL, 1, 2),
    (MADRY, "fgsm", MADRY, 6, 6),
    (MADRY, "pgd-20", MADRY, 4, 5),
)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(path.read_bytes()), keep_default_na=False)


def test_every_file_that_is_named_is_there(tmp_path: Path) -> None:
    files = write_tables(suite_of(tmp_path / "runs", BOTH), tmp_path)
    assert {"leaderboard.md", "white_box.md", "scores.csv", "leaderboard.html"} <= set(files)
    assert [name for name in files if not (tmp_path / name).is_file()] == []


def test_scores_has_exactly_the_promised_columns_and_a_row_a_case(tmp_path: Path) -> None:
    write_tables(suite_of(tmp_path / "runs", BOTH), tmp_path)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 5
    assert lines[2].startswith(
        f"digits,digits,natural,natural,digits-cnn,{'a' * 64},Linf,0.2,pgd-20,,10,90.0,10.0,20.0,"
    )


def test_the_leaderboard_orders_by_the_worst_case_and_shows_any_iterate(tmp_path: Path) -> None:
    write_tables(suite_of(tmp_path / "runs", BOTH), tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    board = read(tmp_path / "leaderboard.csv")
    assert list(board["model"]) == ["madry", "natural"]
    assert list(board["fgsm"]) == [60.0, 30.0]
    assert list(board["worst case"]) == [40.0, 10.0]
    assert (board["ci_low"][1], board["ci_high"][1]) == (1.7876, 40.415)  # Wilson's of 1 in 10
    assert "| 1.79-40.42 " in text
    assert "every judged iterate" in text


def test_a_suite_that_reads_the_last_iterate_shows_it_and_says_so(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "runs", BOTH, reading="last")
    write_tables(suite, tmp_path, rows=ROWS, figures=FIGURES)
    board = read(tmp_path / "leaderboard.csv")
    assert list(board["pgd-20"]) == [50.0, 20.0]
    assert list(board["worst case"]) == [50.0, 20.0]  # a fold in the same reading
    texts = [(tmp_path / f"{name}.md").read_text() for name in ("leaderboard", "papers")]
    assert all("at the last iterate" in text and "every judged iterate" not in text for text in texts)
    papers = read(tmp_path / "papers.csv").set_index("attack")
    assert papers["measured"]["pgd-20"] == 50.0


def test_an_attack_without_a_last_iterate_shows_its_only_reading(tmp_path: Path) -> None:
    results = [(NATURAL, "fgsm", NATURAL, 3, 4), (NATURAL, "foolbox-deepfool", NATURAL, 2, None)]
    write_tables(suite_of(tmp_path / "runs", results, reading="last"), tmp_path)
    assert list(read(tmp_path / "leaderboard.csv")[["fgsm", "foolbox-deepfool"]].iloc[0]) == [40.0, 20.0]
    assert list(read(tmp_path / "scores.csv")["robust_acc_last"]) == ["40.0", ""]
    table = read(tmp_path / "white_box.csv")
    assert list(table["natural"]) == [30.0, 20.0]
    assert list(table["natural (last)"]) == ["40.0", ""]


def test_the_white_box_table_gives_both_readings_and_the_cost(tmp_path: Path) -> None:
    write_tables(suite_of(tmp_path / "runs", BOTH), tmp_path)
    table = read(tmp_path / "white_box.csv").set_index("attack")
    assert (table["natural"]["pgd-20"], table["natural (last)"]["pgd-20"]) == (10.0, 20.0)
    assert "| 10.00 (20.00) |" in (tmp_path / "white_box.md").read_text()
    assert table["forward passes"]["pgd-20"] == 21
    assert table["backward passes"]["pgd-20"] == 20


def test_the_white_box_table_has_all_models_before_the_cost(tmp_path: Path) -> None:
    results: list[Result] = [(NATURAL, "fgsm", NATURAL, 5, 5), (NATURAL, "pgd-20", NATURAL, 5, 5)]
    write_tables(suite_of(tmp_path / "runs", [*results, (MADRY, "pgd-20", MADRY, 8, 8)]), tmp_path)
    columns = list(read(tmp_path / "white_box.csv").columns)
    assert columns == [
        "attack",
        "natural",
        "natural (last)",
        "madry",
        "madry (last)",
        "forward passes",
        "backward passes",
    ]


def test_the_black_box_table_has_sources_in_rows_and_targets_in_columns(tmp_path: Path) -> None:
    crossed: list[Result] = [(NATURAL, "pgd-20", MADRY, 5, 5), (MADRY, "pgd-20", NATURAL, 8, 8)]
    write_tables(suite_of(tmp_path / "runs", [*BOTH, *crossed]), tmp_path)
    table = read(tmp_path / "black_box.csv").set_index("source")
    assert (table["natural"]["madry"], table["madry"]["natural"]) == ("50.0", "80.0")
    assert (table["natural"]["natural"], table["madry"]["madry"]) == ("", "")


def test_tiers_are_worst_cases_of_those_who_have_no_gradients(tmp_path: Path) -> None:
    queries = (*BOTH, (MADRY, "square-500", MADRY, 7, None), (MADRY, "rays", MADRY, 8, None))
    write_tables(suite_of(tmp_path / "runs", (*queries, (MADRY, "pgd-20", NATURAL, 8, 8))), tmp_path)
    tiers = read(tmp_path / "tiers.csv")
    assert tiers.to_dict("records") == [
        {"model": "madry", "transfer": 80.0, "logits": 70.0, "labels": 80.0}
        | {"black-box worst case": 70.0, "worst case": 40.0, "gap": 30.0}
    ]
    assert "`transfer` is crafted on other models" in (tmp_path / "tiers.md").read_text()
    alone = tmp_path / "alone"
    write_tables(suite_of(alone / "runs", [(MADRY, "square-500", MADRY, 7, None)]), alone)
    assert "gap" not in read(alone / "tiers.csv")  # nobody tried gradients
    board = read(tmp_path / "leaderboard.csv").set_index("model")
    assert dict(board[BLACK_BOX]) == {"madry": "70.0", "natural": ""}
    assert "Black-box worst case: over those" in (tmp_path / "leaderboard.md").read_text()
    write_tables(suite_of(tmp_path / "others", BOTH), tmp_path)
    assert not (tmp_path / "tiers.csv").exists()
    assert BLACK_BOX not in read(tmp_path / "leaderboard.csv").columns


@pytest.mark.parametrize(("robust", "flagged"), [(0, True), (1, False), (6, False), (8, False)])
def test_an_attack_that_does_better_from_another_model_is_flagged(tmp_path: Path, robust: int, flagged: bool) -> None:
    """Six images against none are p 0.016, enough for three comparisons; five are not."""
    transferred = (MADRY, "fgsm", NATURAL, robust, robust)
    write_tables(suite_of(tmp_path / "runs", [*BOTH, transferred]), tmp_path)
    flags = read(tmp_path / "leaderboard.csv").set_index("model")["flags"]
    assert flags["madry"] == ("transfer-beats-white-box(60.0)" if flagged else "")
    assert flags["natural"] == ""
    assert ("Flag `transfer-beats-white-box`" in (tmp_path / "leaderboard.md").read_text()) == flagged
    compared = read(tmp_path / "flags.csv")
    assert list(compared["flag"]) == [
        *("one-step-beats-iterative", "transfer-beats-white-box", "one-step-beats-iterative")
    ]
    row = compared.set_index("flag").loc["transfer-beats-white-box"]
    assert (row["n"], row["attack_only"], row["against_only"]) == (10, max(6 - robust, 0), max(robust - 6, 0))
    assert bool(row["raised"]) == flagged


def test_flags_of_a_model_are_shown_and_explained(tmp_path: Path) -> None:
    write_tables(suite_of(tmp_path / "runs", BOTH, flags=["randomized"]), tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert set(read(tmp_path / "leaderboard.csv")["flags"]) == {"randomized"}
    assert "Flag `randomized`: passes" in text
    assert "Flag `probabilities`" not in text


def test_tables_that_have_nothing_to_show_any_more_are_removed(tmp_path: Path) -> None:
    crossed: list[Result] = [(NATURAL, "pgd-20", MADRY, 5, 5)]
    first = suite_of(tmp_path / "first", [*BOTH, *crossed])
    write_tables(first, tmp_path, rows=ROWS, figures=FIGURES)
    tables = {"black_box.csv", "black_box.md", "papers.csv", "papers.md"}
    assert tables <= {path.name for path in tmp_path.iterdir()}
    write_tables(suite_of(tmp_path / "second", [BOTH[0]]), tmp_path)
    assert not tables & {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "leaderboard.md").exists()


def test_nothing_correct_when_clean_leaves_the_success_rate_empty(tmp_path: Path) -> None:
    write_tables(suite_of(tmp_path / "runs", [(NATURAL, "fgsm", NATURAL, 0, 0)], correct=0), tmp_path)
    row = read(tmp_path / "scores.csv").iloc[0]
    assert (row["clean_acc"], row["robust_acc"], row["asr"]) == (0.0, 0.0, "")


def test_no_complete_case_writes_no_table(tmp_path: Path) -> None:
    assert write_tables(score_suite(Store(tmp_path), "digits"), tmp_path / "t") == {}
    assert not (tmp_path / "t").exists()


def test_the_store_alone_gives_the_same_bytes_again(command: Command, tmp_path: Path) -> None:
    words = ("--models", "natural,madry", "--attacks", "fgsm,mi-fgsm,pgd-20", "--examples", "20", "--quiet")
    first = command(tmp_path, *words)
    assert first.returncode == 0
    tables = {path: path.read_bytes() for path in (tmp_path / "results/mine/digits").iterdir() if path.is_file()}
    assert {path.name for path in tables} == {
        *("scores.csv", "timing.csv", "leaderboard.csv", "leaderboard.md"),
        *("white_box.csv", "white_box.md", "black_box.csv", "black_box.md"),
        *("leaderboard.html", "model_info.json", "leaderboard.tex", "white_box.tex", "black_box.tex", "claims.tex"),
        *("flags.csv", "flags.md", "claims.csv", "claims.md", "tiers.csv", "tiers.md", "tiers.tex"),
    }
    for path in tables:
        path.unlink()
    again = command(tmp_path, "table")
    assert (again.returncode, re.sub(r"\n  pictures/ +\d pictures", "", again.stdout)) == (0, first.stdout)
    assert {
        path: path.read_bytes() for path in (tmp_path / "results/mine/digits").iterdir() if path.is_file()
    } == tables


def test_rebuilding_from_an_empty_store_is_the_users_mistake(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "table")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: expected verdicts in results/mine/runs")


def test_a_model_under_fewer_attacks_than_the_table_is_flagged(tmp_path: Path) -> None:
    results = [(NATURAL, "fgsm", NATURAL, 3, 4), (NATURAL, "pgd-20", NATURAL, 2, 3), (MADRY, "fgsm", MADRY, 5, 5)]
    write_tables(suite_of(tmp_path / "runs", results), tmp_path)
    flags = read(tmp_path / "leaderboard.csv").set_index("model")["flags"]
    assert flags["madry"] == "fewer-attacks"
    assert flags["natural"] == ""


def test_a_model_that_others_were_not_crafted_against_has_fewer_attacks(command: Command, tmp_path: Path) -> None:
    words = ("--attacks", "fgsm", "--transfer", "fgsm", "--examples", "20", "--quiet")
    assert command(tmp_path, "--models", "natural,madry", "--sources", "natural", *words).returncode == 0
    assert command(tmp_path, "--models", "fast", *words[:2], "--transfer", "none", *words[4:]).returncode == 0
    board = pd.read_csv(tmp_path / "results/mine/digits/leaderboard.csv", keep_default_na=False).set_index("model")
    assert dict(board["flags"]) == {"natural": "", "madry": "", "fast": "fewer-attacks"}
