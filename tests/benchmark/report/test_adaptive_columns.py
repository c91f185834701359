"""Adaptive attacks in the tables: columns of their own, which no model without a surrogate lacks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.leaderboard import leaderboard, legend
from benchmark.report.score import SuiteScores, score_suite
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import ADAPTIVE, EvalCase, case_key
from model_zoo.model_spec import ModelSpec
from model_zoo.surrogates import own_surrogate

CONTROL = ModelSpec(
    "control",
    suites=("digits-masked",),
    dataset="digits",
    architecture="digits-cnn",
    defense="natural",
    checkpoint="c.safetensors",
    sha256="a" * 64,
)
MASKED = replace(CONTROL, name="masked", architecture="digits-cnn+jpeg-75", sha256="b" * 64)
OTHER = replace(MASKED, name="other", sha256="c" * 64)
MODELS = {spec.name: spec for spec in (CONTROL, MASKED, OTHER)}
CELLS = {("control", "pgd-100"): 6, ("masked", "pgd-100"): 9, ("masked", "pgd-100 adaptive"): 1}
TIMING = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "versions": "torch=2"}


def suite_of(folder: Path, cells: Mapping[tuple[str, str], int]) -> SuiteScores:
    """The scores of cases (model, attack) on ten images, of which the first so many are robust."""
    store, first, cases = Store(folder), np.arange(10), []
    for (name, attack), robust in cells.items():
        model = MODELS[name]
        source = own_surrogate(model) if attack.endswith(ADAPTIVE) else model
        assert source is not None
        spec = ATTACKS[attack.removesuffix(ADAPTIVE)]
        case = EvalCase("digits-masked", "digits", "c" * 64, 10, model, source, spec, ThreatModel("Linf", 0.2), 0)
        held = first < robust
        passes = np.full(10, 20.0)
        label = np.ones(10, dtype=np.int64)
        verdicts = Verdicts(first, label, label, robust_any=held, robust_last=None, forwards=passes, backwards=passes)
        store.write_case(case_key(case), {"flags": []})
        store.write_chunk(case_key(case), (0, 10), verdicts, TIMING)
        cases.append(case)
    show(store, "digits-masked", "any", cases, [(rank,) for rank in range(len(cases))])
    return score_suite(store, "digits-masked")


def board_of(folder: Path, cells: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    return leaderboard(suite_of(folder, cells)).set_index("model")


def test_an_adaptive_attack_has_a_column_and_counts_in_the_worst_case(tmp_path: Path) -> None:
    board = board_of(tmp_path, CELLS)
    assert list(board.loc["masked", ["pgd-100", "pgd-100 adaptive", "worst case"]]) == [90.0, 10.0, 10.0]
    assert board["worst case"]["control"] == 60.0


def test_no_model_lacks_an_adaptive_attack_but_the_plain_ones_of_the_table(tmp_path: Path) -> None:
    """One attack by a surrogate is as good as another, and some models have none."""
    more = {**CELLS, ("other", "pgd-100"): 9, ("other", "cw-linf adaptive"): 2}
    assert not any("fewer-attacks" in flags for flags in board_of(tmp_path / "a", more)["flags"])
    flags = board_of(tmp_path / "b", {**more, ("other", "fgsm"): 9})["flags"]
    assert {model for model in flags.index if "fewer-attacks" in flags[model]} == {"control", "masked"}


def test_autoattack_for_models_that_answer_at_random_is_as_good_as_the_other(tmp_path: Path) -> None:
    cells = {("masked", "autoattack-rand"): 1, ("other", "autoattack"): 1}
    assert list(board_of(tmp_path, cells)["flags"]) == ["", ""]


def test_the_legend_says_what_adaptive_means_just_where_there_is_such_a_column(tmp_path: Path) -> None:
    for folder, cells, there in ((tmp_path / "a", CELLS, True), (tmp_path / "b", {("control", "fgsm"): 6}, False)):
        suite = suite_of(folder, cells)
        assert ("Adaptive: crafted on a surrogate" in legend(suite, leaderboard(suite))) is there
