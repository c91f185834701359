"""Verdicts to scores: every figure by its formula, and the rows that a suite shows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.score import COLUMNS, score, score_suite
from benchmark.stats.shares import wilson
from benchmark.store.selection import show, shown_case
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
LINF = ThreatModel("Linf", 0.2)


def case(model: ModelSpec, attack: str, *, source: ModelSpec | None = None, images: str = "c" * 64) -> EvalCase:
    return EvalCase("digits", "digits", images, 10, model, source or model, ATTACKS[attack], LINF, 0)


def verdicts(robust: str, *, last: str | None = None, correct: str = "1111111110") -> Verdicts:
    """Verdicts on ten images of class 1, from strings of 0 and 1."""
    robust_any, robust_last, right = (
        None if text is None else np.array([c == "1" for c in text]) for text in (robust, last, correct)
    )
    assert robust_any is not None
    assert right is not None
    label = np.ones(10, dtype=np.int64)
    forwards = np.arange(10.0)
    return Verdicts(np.arange(10), label, np.where(right, 1, 0), robust_any, robust_last, forwards, 2 * forwards)


def fill(store: Store, shown: Sequence[tuple[EvalCase, Verdicts]], *, reading: str = "any") -> None:
    """Write verdicts as a sweep does, and show them."""
    for item, result in shown:
        flags = ["randomized"] if item.model is MADRY else []
        store.write_case(case_key(item), {"identity": {}, "flags": flags, "zero_gradients": 1.5})
        store.write_chunk(case_key(item), (0, 10), result, TIMING)
    show(store, "digits", reading, [item for item, _ in shown], [(i,) for i in range(len(shown))])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


# Figures


def test_columns_are_those_promised_in_their_order() -> None:
    assert ",".join(COLUMNS) == (
        "suite,dataset,model,defense,architecture,checkpoint_sha256,norm,epsilon,attack,source_model,n,clean_acc,"
        "robust_acc,robust_acc_last,robust_acc_single_draw,ci_low,ci_high,asr,forwards_per_image,backwards_per_image,"
        "zero_gradients,flags,seed,judge_draws,eot,version"
    )


def test_robust_accuracy_is_over_all_images_and_asr_over_those_correct_when_clean() -> None:
    row = score(
        shown_case(case(NATURAL, "pgd-20"), [0]), verdicts("1110000000", last="1111000000", correct="1111111100"), []
    )
    assert (row["clean_acc"], row["robust_acc"], row["robust_acc_last"]) == (80.0, 30.0, 40.0)
    assert row["asr"] == 100 * (8 - 3) / 8
    assert (row["forwards_per_image"], row["backwards_per_image"]) == (4.5, 9.0)


def test_a_row_says_what_was_measured() -> None:
    row = score(
        shown_case(case(NATURAL, "pgd-20", source=MADRY), [0]), verdicts("1110000000"), ["probabilities", "randomized"]
    )
    assert list(row) == list(COLUMNS)
    named = ("suite", "model", "checkpoint_sha256", "norm", "epsilon", "attack", "source_model", "n", "seed", "version")
    assert [row[name] for name in named] == ["digits", "natural", "a" * 64, "Linf", 0.2, "pgd-20", "madry", 10, 0, 2]
    assert (row["flags"], row["robust_acc_last"]) == ("probabilities randomized", None)


def test_without_a_correct_image_there_is_no_attack_success_rate() -> None:
    row = score(shown_case(case(NATURAL, "pgd-20"), [0]), verdicts("0" * 10, correct="0" * 10), [])
    assert (row["clean_acc"], row["robust_acc"], row["asr"]) == (0.0, 0.0, None)


@pytest.mark.parametrize(("successes", "n"), [(0, 40), (1, 3), (20, 40), (613, 1000), (40, 40)])
def test_intervals_are_wilsons(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(successes, n) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=1e-9)


# What a suite shows


def test_scores_are_read_back_in_the_order_of_their_ranks(store: Store) -> None:
    shown = [(case(MADRY, "pgd-20"), verdicts("1" * 10)), (case(NATURAL, "fgsm"), verdicts("0" * 10))]
    fill(store, shown)
    show(store, "digits", "any", [item for item, _ in shown], [(1,), (0,)])
    suite = score_suite(store, "digits")
    assert set(suite.scores["zero_gradients"]) == {1.5}
    assert list(suite.scores["model"]) == ["natural", "madry"]
    assert list(suite.scores["flags"]) == ["", "randomized"]
    assert list(suite.timing["seconds"]) == [1.0, 1.0]


def test_the_worst_case_is_a_fold_over_the_verdicts_image_by_image(store: Store) -> None:
    fill(
        store,
        [
            (case(NATURAL, "fgsm"), verdicts("1111100000")),
            (case(NATURAL, "pgd-20"), verdicts("0111110000")),
            (case(NATURAL, "pgd-20", source=MADRY), verdicts("1101111110")),
            (case(MADRY, "pgd-20"), verdicts("0000000000")),
        ],
    )
    worst = score_suite(store, "digits").worst
    assert worst["natural"].tolist() == [False, True, False, True, True] + 5 * [False]
    assert not worst["madry"].any()


def test_an_incomplete_case_is_left_out(store: Store) -> None:
    fill(store, [(case(NATURAL, "fgsm"), verdicts("1111100000"))])
    show(store, "digits", "any", [case(NATURAL, "pgd-20")], [(1,)])
    suite = score_suite(store, "digits")
    assert list(suite.scores["attack"]) == ["fgsm"]
    assert suite.worst["natural"].sum() == 5


def test_tables_never_mix_images(store: Store) -> None:
    fill(store, [(case(NATURAL, "fgsm"), verdicts("1111100000"))])
    fill(store, [(case(NATURAL, "pgd-20", images="d" * 64), verdicts("1110000000"))])
    assert list(score_suite(store, "digits").scores["attack"]) == ["pgd-20"]
    show(store, "digits", "any", [case(NATURAL, "fgsm")], [(0,)])
    assert list(score_suite(store, "digits").scores["attack"]) == ["fgsm"]


def test_a_later_run_adds_to_the_rows_of_an_earlier_one(store: Store) -> None:
    fill(store, [(case(NATURAL, "fgsm"), verdicts("1111100000"))])
    fill(store, [(case(NATURAL, "pgd-20"), verdicts("1110000000"))])
    assert sorted(score_suite(store, "digits").scores["attack"]) == ["fgsm", "pgd-20"]


@pytest.mark.parametrize("change", [{"sha256": "e" * 64}, {"code": "factory@" + "e" * 64}])
def test_a_worst_case_never_mixes_two_networks_of_one_name(store: Store, change: dict[str, Any]) -> None:
    fill(
        store, [(case(NATURAL, "fgsm"), verdicts("0" * 10)), (case(MADRY, "fgsm", source=NATURAL), verdicts("0" * 10))]
    )
    again = replace(NATURAL, **change)
    fill(store, [(case(again, "pgd-20"), verdicts("1111100000"))])
    suite = score_suite(store, "digits")
    assert list(suite.scores["attack"]) == ["pgd-20"]
    assert {name: int(worst.sum()) for name, worst in suite.worst.items()} == {"natural": 5}


def test_a_suite_that_was_never_run_has_no_scores(store: Store) -> None:
    suite = score_suite(store, "mnist")
    assert isinstance(suite.scores, pd.DataFrame)
    assert suite.scores.empty
    assert list(suite.scores.columns) == list(COLUMNS)
