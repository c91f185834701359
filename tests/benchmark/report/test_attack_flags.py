"""Flags of the tables: raised by a difference beyond the margin with evidence enough, and by nothing less."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.report.attack_flags import MARGINS, comparisons, flag_table, raised_flags
from benchmark.report.attack_flags import flags_of as of_one_model
from benchmark.report.score import COLUMNS, Judged, SuiteScores
from benchmark.stats.sequential import holm
from benchmark.store.selection import shown_case
from benchmark.suites.case import EvalCase
from model_zoo.model_spec import ModelSpec

N = 500
MODEL = ModelSpec(
    "mine",
    suites=("digits",),
    dataset="digits",
    architecture="digits-cnn",
    defense="natural",
    checkpoint="mine.safetensors",
    sha256="a" * 64,
)
SHOWN = shown_case(
    EvalCase("digits", "digits", "c" * 64, N, MODEL, MODEL, ATTACKS["fgsm"], ThreatModel("Linf", 0.2), 0), [0]
)
Case = tuple[str, str]  # attack, source

PAIRS: Mapping[str, tuple[Case, Case]] = {
    "transfer-beats-white-box": (("pgd-20", "natural"), ("pgd-20", "")),
    "black-box-beats-gradients": (("square-500", ""), ("cw-linf", "")),
    "pgd-overestimates": (("autoattack", ""), ("pgd-100", "")),
    "one-step-beats-iterative": (("fgsm", ""), ("pgd-40", "")),
    "logit-scaling": (("pgd-40-x10", ""), ("pgd-40", "")),
    "other-loss": (("pgd-40-dlr", ""), ("pgd-40", "")),
    "adaptive-beats-plain": (("pgd-40 adaptive", ""), ("pgd-40", "")),
}
"""For each flag a case, and the one that it should be no stronger than."""


Cases = dict[tuple[str, str, str], Judged]
"""Model, attack and source to verdicts."""


def judged(robust: "np.typing.ArrayLike", first: int = 0) -> Judged:
    flags = np.asarray(robust, dtype=np.bool_)
    index = np.arange(first, first + len(flags))
    return Judged(index, np.zeros(len(flags), np.int64), np.ones(len(flags), np.bool_), flags)


def suite_of(cases: Cases) -> SuiteScores:
    """The scores of some cases, by model, attack and source."""
    entries = [replace(SHOWN, model=model, attack=attack, source_model=source) for model, attack, source in cases]
    scores = pd.DataFrame(columns=list(COLUMNS))
    return SuiteScores("digits", "any", scores, pd.DataFrame(), {}, {}, entries, list(cases.values()))


def pair(
    flag: str, broken: int, against: int, *, n: int = N, model: str = "mine"
) -> dict[tuple[str, str, str], Judged]:
    """Two cases of a model: one alone breaks the first images, the other alone the last ones."""
    stronger, weaker = PAIRS[flag]
    images = np.arange(n)
    return {(model, *stronger): judged(images >= broken), (model, *weaker): judged(images < n - against)}


def flags_of(cases: Cases, model: str = "mine") -> list[str]:
    return raised_flags(flag_table(suite_of(cases)), model)


@pytest.mark.parametrize("flag", list(MARGINS))
def test_a_flag_is_raised_beyond_its_margin_with_evidence_enough(flag: str) -> None:
    points = MARGINS[flag] + 1
    assert flags_of(pair(flag, int(points * N / 100), 0)) == [f"{flag}({points:.1f})"]


@pytest.mark.parametrize("flag", list(MARGINS))
def test_a_flag_is_silent_at_its_margin_however_sure_the_difference_is(flag: str) -> None:
    cases = pair(flag, int(MARGINS[flag] * N / 100), 0)
    (row,) = flag_table(suite_of(cases)).to_dict("records")
    assert row["p_holm"] < 1e-3
    assert flags_of(cases) == []


@pytest.mark.parametrize("flag", list(MARGINS))
def test_a_flag_is_silent_where_chance_explains_the_difference(flag: str) -> None:
    """Of 50 images, six against none are 12 points, p 0.016; ten against four are as many, p 0.09."""
    assert flags_of(pair(flag, 6, 0, n=50)) == [f"{flag}(12.0)"]
    assert flags_of(pair(flag, 10, 4, n=50)) == []


@pytest.mark.parametrize("flag", list(MARGINS))
def test_a_flag_is_silent_where_the_case_is_the_weaker(flag: str) -> None:
    assert flags_of(pair(flag, 0, 100)) == []


def test_the_evidence_counts_over_all_comparisons_of_the_table() -> None:
    """Eight images against none have p 0.004: enough for one comparison, not among 21."""
    alone = pair("transfer-beats-white-box", 8, 0, n=100)
    assert flags_of(alone) == ["transfer-beats-white-box(8.0)"]
    others = {
        key: case
        for i in range(20)
        for key, case in pair("transfer-beats-white-box", 0, 0, n=100, model=f"other-{i}").items()
    }
    assert flags_of({**alone, **others}) == []
    surer = pair("transfer-beats-white-box", 17, 0, n=100)
    assert flags_of({**surer, **others}) == ["transfer-beats-white-box(17.0)"]


def test_only_images_that_both_cases_saw_are_compared() -> None:
    robust = np.arange(N) >= 250
    cases = {("mine", "autoattack", ""): judged(~robust[:100]), ("mine", "pgd-100", ""): judged(robust)}
    (one,) = comparisons(suite_of(cases))
    assert (one.n, one.only_attack, one.only_against) == (100, 0, 100)


def under_own_names(**attacks: AttackSpec) -> list[str]:
    """The flags where each attack, under a name of its own, breaks a fifth of the images fewer than the one before."""
    images = np.arange(N)
    cases = {
        (name, ""): judged(images >= N // 5 * (len(attacks) - place)) for place, name in enumerate(attacks, start=1)
    }
    specs = {name: replace(attack, name=name) for name, attack in attacks.items()}
    return [flag.partition("(")[0] for flag in of_one_model("mine", cases, specs)]


def test_attacks_under_names_of_their_own_are_what_they_are() -> None:
    pgd = ATTACKS["pgd-20"]
    assert under_own_names(aa=ATTACKS["autoattack-brief"], long=replace(pgd, steps=120)) == ["pgd-overestimates"]
    assert under_own_names(aa=ATTACKS["autoattack"], short=pgd) == []
    assert under_own_names(step=ATTACKS["fgsm"], short=pgd) == ["one-step-beats-iterative"]
    assert under_own_names(step=ATTACKS["fgsm"], few=replace(pgd, steps=10)) == []
    scaled = replace(ATTACKS["pgd-40-x10"], steps=30)
    assert under_own_names(scaled=scaled, plain=replace(pgd, steps=30)) == ["logit-scaling"]
    assert under_own_names(query=ATTACKS["square"], plain=pgd) == ["black-box-beats-gradients"]


def test_a_black_box_search_is_compared_with_the_best_attack_by_gradients() -> None:
    images = np.arange(N)
    cases: Cases = {
        ("mine", "fgsm", ""): judged(images >= 10),
        ("mine", "cw-linf", ""): judged(images >= 200),
        ("mine", "autoattack", ""): judged(images >= 500),
        ("mine", "square-500", ""): judged(images >= 300),
    }
    (one,) = [one for one in comparisons(suite_of(cases)) if one.flag == "black-box-beats-gradients"]
    assert (one.attack, one.against, one.points) == ("square-500", "cw-linf", 20.0)


def test_a_transferred_attack_without_its_white_box_twin_is_compared_with_the_best_by_gradients() -> None:
    images = np.arange(N)
    cases: Cases = {
        ("mine", "fgsm", ""): judged(images >= 10),
        ("mine", "pgd-40", ""): judged(images >= 100),
        ("mine", "mi-fgsm", "natural"): judged(images >= 300),
    }
    assert flags_of(cases) == ["transfer-beats-white-box(40.0)"]
    assert [one.against for one in comparisons(suite_of(cases)) if one.source] == ["pgd-40"]


def test_one_step_is_compared_with_the_longest_pgd_that_was_run() -> None:
    images = np.arange(N)
    cases: Cases = {
        ("mine", "fgsm", ""): judged(images >= 100),
        ("mine", "pgd-20", ""): judged(images >= 50),
        ("mine", "pgd-100", ""): judged(images >= 100),
    }
    assert [one.against for one in comparisons(suite_of(cases))] == ["pgd-100"]
    assert flags_of(cases) == []


def test_holm_multiplies_the_smallest_p_by_all_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_comparison_without_a_disagreement_is_no_evidence() -> None:
    (one,) = comparisons(suite_of(pair("logit-scaling", 0, 0)))
    assert one.p == 1.0
