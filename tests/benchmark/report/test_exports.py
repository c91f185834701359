"""RobustBench's JSON has the leaderboard's numbers, and nothing that is not known."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmark.report.exports import model_info
from benchmark.report.leaderboard import leaderboard
from benchmark.report.score import SuiteScores, score_suite
from benchmark.store.packed import read_packed

VERDICTS = Path(__file__).resolve().parents[3] / "results/verdicts/digits.json"
FIELDS = {"link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"} | {
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
}


@pytest.fixture(scope="module")
def suite() -> SuiteScores:
    return score_suite(read_packed(VERDICTS), "digits")


@pytest.fixture(scope="module")
def board(suite: SuiteScores) -> pd.DataFrame:
    return leaderboard(suite)


def test_model_info_has_the_fields_of_robustbench_and_the_numbers_of_the_leaderboard(
    suite: SuiteScores, board: pd.DataFrame
) -> None:
    records = json.loads(model_info(suite, board))
    assert list(records) == list(board["model"])
    for row in board.to_dict("records"):
        record = records[row["model"]]
        assert set(record) >= FIELDS
        assert (record["clean_acc"], record["worst_case_acc"]) == (f"{row['clean']:.2f}", f"{row['worst case']:.2f}")
    assert records["madry"]["link"] == "https://arxiv.org/abs/1706.06083"
    assert (records["madry"]["eps"], records["madry"]["norm"]) == ("0.2", "Linf")
    assert records["madry"]["autoattack_acc"] is None  # the digits suite runs autoattack-fast, which is another attack
