"""Which images broke: right when clean, broken by some attack; what each was taken for, by which attack."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.broken import SHOWN, broken_images
from benchmark.report.score import SuiteScores, score_suite
from benchmark.report.tables import write_tables
from benchmark.store.packed import read_packed
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec

VERDICTS = Path(__file__).resolve().parents[3] / "results/verdicts"
TIMING = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "versions": "torch=2"}
MODEL = ModelSpec(
    "mine",
    suites=("digits",),
    dataset="digits",
    architecture="digits-cnn",
    defense="madry",
    checkpoint="digits/mine.safetensors",
    sha256="a" * 64,
)


@pytest.fixture
def suite(tmp_path: Path) -> SuiteScores:
    """Images 0, 7, ... 63 of classes 0 to 9; 63 is wrong when clean; PGD breaks one more than FGSM does."""
    store, index, label = Store(tmp_path / "runs"), np.arange(10) * 7, np.arange(10)
    correct, cases = label < 9, []
    for attack, robust in (("fgsm", label < 8), ("pgd-20", label < 7)):
        case = EvalCase("digits", "digits", "c" * 64, 10, MODEL, MODEL, ATTACKS[attack], ThreatModel("Linf", 0.2), 0)
        verdicts = Verdicts(
            index=index,
            label=label,
            prediction=np.where(correct, label, 0),
            robust_any=robust & correct,
            robust_last=None,
            forwards=np.ones(10),
            backwards=np.ones(10),
            adversarial_class=np.where(correct & ~robust, label - (2 if attack == "fgsm" else 3), -1),
        )
        store.write_case(case_key(case), {"flags": []})
        store.write_chunk(case_key(case), (0, 10), verdicts, TIMING)
        cases.append(case)
    show(store, "digits", "any", cases, [(rank,) for rank in range(len(cases))])
    return score_suite(store, "digits")


def test_the_first_attack_that_broke_an_image_says_what_it_was_taken_for(suite: SuiteScores) -> None:
    found = broken_images(suite, "mine")
    assert (found.count, found.n) == (2, 10)
    assert found.listed == [[49, 7, 4, 1, 1], [56, 8, 6, 0, 2]]


def test_verdicts_without_classes_say_so(suite: SuiteScores) -> None:
    older = replace(suite, judged=[replace(one, adversarial_class=None) for one in suite.judged])
    assert [row[2] for row in broken_images(older, "mine").listed] == [-1, -1]


def test_long_lists_are_capped_and_the_page_stays_small(tmp_path: Path) -> None:
    """Of all models of MNIST, 10,000 images each."""
    suite = score_suite(read_packed(VERDICTS / "mnist.json"), "mnist")
    found = broken_images(suite, "natural")
    assert len({label for _, label, *_ in found.listed}) == 10
    worst = suite.worst["natural"]
    assert found.count > SHOWN == len(found.listed)
    assert worst.sum() <= found.n - found.count < len(worst)
    write_tables(suite, tmp_path)
    assert (tmp_path / "leaderboard.html").stat().st_size < 2 * 2**20
