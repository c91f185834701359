"""Queries: what broken images took, the bad ones among them, and what withstands a budget."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attacks.registry import attack_spec
from attacks.threat_model import ThreatModel
from benchmark.report.leaderboard import leaderboard
from benchmark.report.plots import write_pictures
from benchmark.report.queries import query_table
from benchmark.report.score import SuiteScores, score_suite
from benchmark.report.tables import write_tables
from benchmark.store.packed import gather, read_packed, write_packed
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
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
FIRST = np.arange(10)
HALF = (500, 900, 1500, 1800, *[2000] * 5, 0)
"""Queries of ten images under an attack of 2,000: four broken, five not, the last one misclassified when clean."""


def case_of(store: Store, model: ModelSpec, attack: str, queries: Sequence[int] | None, *, broken: int = 4) -> EvalCase:
    case = EvalCase("digits", "digits", "c" * 64, 10, model, model, attack_spec(attack), ThreatModel("Linf", 0.2), 0)
    verdicts = Verdicts(
        index=FIRST,
        label=np.ones(10, dtype=np.int64),
        prediction=(FIRST < 9).astype(np.int64),
        robust_any=(broken <= FIRST) & (FIRST < 9),
        robust_last=None,
        forwards=np.full(10, 7.0),
        backwards=np.zeros(10),
        queries=None if queries is None else np.array(queries),
        bad_queries=None if queries is None else np.array(queries) // 100,
    )
    store.write_case(case_key(case), {"flags": []})
    store.write_chunk(case_key(case), (0, 10), verdicts, TIMING)
    return case


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    cases = [
        case_of(store, NATURAL, "rays-2000", HALF),
        case_of(store, NATURAL, "square-500", None),  # stored before queries were
        case_of(store, NATURAL, "foolbox-boundary-1000", [10] * 9 + [0], broken=9),
        case_of(store, MADRY, "rays-2000", [2000] * 9 + [0], broken=0),
    ]
    show(store, "digits", "any", cases, [(rank,) for rank in range(len(cases))])
    return store


@pytest.fixture
def suite(store: Store) -> SuiteScores:
    return score_suite(store, "digits")


def test_queries_are_those_of_broken_images_and_budgets_beyond_an_attacks_own_are_not_known(suite: SuiteScores) -> None:
    table = query_table(suite)
    first, all_broken, none_broken = table.to_dict("records")
    assert list(table["attack"]) == ["rays-2000", "foolbox-boundary-1000", "rays-2000"]
    assert (first["n"], first["broken"]) == (10, 4)
    assert (first["queries, median"], first["queries, mean"]) == (1200.0, 1175.0)
    assert (first["bad queries, median"], first["bad queries, mean"]) == (12.0, 11.75)
    assert (first["at 1,000"], first["at 2,000"], first["in the end"]) == (70.0, 50.0, 50.0)
    assert np.isnan(first["at 10,000"])
    assert (all_broken["at 1,000"], all_broken["at 10,000"]) == (0.0, 0.0)  # broken images stay broken
    assert np.isnan(none_broken["queries, median"])
    assert none_broken["at 2,000"] == 90.0


def test_what_withstands_in_the_end_is_the_robust_accuracy(suite: SuiteScores) -> None:
    table = query_table(suite).set_index(["model", "attack"])["in the end"]
    scores = suite.scores.set_index(["model", "attack"])["robust_acc"]
    assert dict(table) == dict(scores.loc[table.index])


def test_queries_are_a_table_and_a_picture_from_a_store_and_packed_alike(store: Store, tmp_path: Path) -> None:
    write_packed(gather(store, "digits"), tmp_path / "verdicts")
    for name, read in (("one", store), ("two", read_packed(tmp_path / "verdicts.json"))):
        suite = score_suite(read, "digits")
        assert "queries.md" in write_tables(suite, tmp_path / name)
        assert "queries" in write_pictures(suite, leaderboard(suite), pd.DataFrame(), tmp_path / name)
    for file in ("queries.md", "queries.csv", "queries.tex", "queries.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_no_table_and_no_picture_where_no_queries_are_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    show(store, "digits", "any", [case_of(store, NATURAL, "square-500", None)], [(0,)])
    suite = score_suite(store, "digits")
    assert query_table(suite).empty
    assert "queries.md" not in write_tables(suite, tmp_path / "tables")
    assert "queries" not in write_pictures(suite, leaderboard(suite), pd.DataFrame(), tmp_path / "pictures")


@pytest.mark.parametrize("model", ["natural", "madry"])
def test_the_black_box_worst_case_is_never_below_the_worst_case(suite: SuiteScores, model: str) -> None:
    board = leaderboard(suite).set_index("model")
    assert board["black-box worst case"][model] >= board["worst case"][model]
