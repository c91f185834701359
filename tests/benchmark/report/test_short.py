"""The leaderboard in the terminal: never wider than it, and whole in what everybody asks."""

import pandas as pd
import pytest

from benchmark.report.short import file_list, short_board, terminal_width

BOARD = pd.DataFrame(
    {
        "rank": [1, 2],
        "model": ["trades-b6", "a-model-of-a-long-name"],
        "defense": ["trades", "natural"],
        "architecture": ["cnn", "cnn"],
        "clean": [95.04, 97.0],
        "fgsm": [80.0, 30.0],
        "pgd-20": [70.0, 10.0],
        "autoattack": [60.0, float("nan")],
        "worst case": [60.0, 9.95],
        "ci_low": [58.5, 0.0353],
        "ci_high": [66.9, 1.1241],
        "flags": ["", "logit-scaling(10.0) fewer-attacks"],
        "n": [500, 500],
    }
)


def head(text: str) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]


def test_the_table_has_rank_model_clean_worst_case_interval_and_flags() -> None:
    lines = short_board(BOARD, 110).splitlines()
    assert head(lines[0]) == [
        *("rank", "model", "clean", "fgsm", "pgd-20", "autoattack", "worst case", "interval", "flags")
    ]
    first = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert first == ["1", "trades-b6", "95.0", "80.0", "70.0", "60.0", "60.0", "58.5-66.9", "0"]
    assert [cell.strip() for cell in lines[3].strip("|").split("|")][5:] == ["-", "9.9", "0.0-1.1", "2"]
    assert lines[-1] == "Flags: a-model-of-a-long-name logit-scaling(10.0), fewer-attacks."


@pytest.mark.parametrize(("width", "attacks"), [(110, 3), (100, 2), (85, 1), (80, 0), (40, 0)])
def test_attacks_are_columns_only_where_they_fit(width: int, attacks: int) -> None:
    text = short_board(BOARD, width)
    assert max(map(len, text.splitlines())) <= width
    assert len(head(text)) == 6 + attacks


def test_the_attacks_that_leave_the_fewest_standing_come_first() -> None:
    assert head(short_board(BOARD, 85))[3] == "pgd-20"


def test_an_adaptive_attack_stands_beside_the_plain_one() -> None:
    board = BOARD.rename(columns={"autoattack": "fgsm adaptive"})
    board["fgsm adaptive"] = 1.0
    assert head(short_board(board, 98))[3:5] == ["fgsm", "fgsm adaptive"]
    assert "fgsm adaptive" not in head(short_board(board, 85))


def test_a_pipe_has_a_hundred_columns_whatever_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "37")
    assert terminal_width() == 100


def test_files_are_listed_with_what_they_hold() -> None:
    from pathlib import Path

    listed = file_list(Path("there"), {"a.md": "all", "longer.csv": "rows"})
    assert listed == "The rest is in there:\n  a.md        all\n  longer.csv  rows"
