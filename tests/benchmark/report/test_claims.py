"""What papers claim: the data, and what is concluded of it."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from attacks.errors import InputError
from attacks.registry import ATTACKS
from benchmark.report.claims import claim_table, claims_markdown, claims_note
from benchmark.report.papers import CLEAN
from benchmark.report.score import SuiteScores
from benchmark.suites.published import CLAIMS, DIRECTIONS, STATES, Claim, Measure
from model_zoo.defenses.registry import DEFENSES
from model_zoo.registry import MODELS, OF_LAST

CLAIM = Claim(
    "a paper",
    "one is more robust than two",
    Measure.parse("one: pgd-20"),
    Measure.parse("two: pgd-20"),
    direction="more",
    size=0,
    published=3.0,
    source="a table",
    state="unverified",
)
Scores = Callable[..., SuiteScores]


# The data


def test_every_claim_is_of_models_and_attacks_that_there_are() -> None:
    templates = [re.sub(r"\{.*?\}", "NUMBER", spec.model_name) for spec in DEFENSES.values()]
    names = [re.escape(template).replace("NUMBER", r"[\d.]+") for template in templates]
    names += [re.escape(spec.name) for spec in MODELS]
    for claim in CLAIMS:
        for measure in (claim.first, claim.second):
            sources = [case.crafted_on for case in (measure.case, measure.less) if case and case.crafted_on]
            for name in (measure.model, *sources):
                base = name.removesuffix(OF_LAST).removesuffix("-16")
                assert any(re.fullmatch(pattern, base) for pattern in names), name
            for case in (measure.case, measure.less):
                assert case is None or case.attack in (CLEAN, *ATTACKS), claim
        assert claim.first != claim.second
        assert claim.state in STATES
        assert claim.source


def test_no_claim_stands_twice() -> None:
    assert len({claim.claim for claim in CLAIMS}) == len(CLAIMS)
    assert len({(claim.first, claim.second, claim.direction) for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.direction for claim in CLAIMS} == set(DIRECTIONS)


def test_a_published_difference_is_that_of_the_two_figures_in_its_source() -> None:
    checked = 0
    for claim in CLAIMS:
        figures = re.search(r"(\d+\.\d+) and (\d+\.\d+)", claim.source)
        if claim.published is not None and figures:
            assert float(figures[1]) - float(figures[2]) == pytest.approx(claim.published, abs=0.006), claim
            checked += 1
    assert checked > 30


@pytest.mark.parametrize("text", ["gairat", "gairat:pgd-20", "gairat: ", ": pgd-20", ": "])
def test_a_measure_that_cannot_be_read_says_what_was_expected(text: str) -> None:
    with pytest.raises(InputError, match="expected a measure, MODEL: ATTACK"):
        Measure.parse(text)


@pytest.mark.parametrize("text", ["madry: clean", "madry: pgd-20 from natural", "gairat: pgd-20 - autoattack"])
def test_a_measure_is_written_as_it_is_read(text: str) -> None:
    assert Measure.parse(text).text == text


def test_a_direction_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of more, no less, alike, got 'less'"):
        replace(CLAIM, direction="less")


# What is concluded

ONE, TWO = ("one", "pgd-20", ""), ("two", "pgd-20", "")


@pytest.mark.parametrize(
    ("direction", "size", "one", "two", "verdict"),
    [
        ("more", 0, 300, 200, "holds for these models"),
        ("more", 0, 200, 300, "does not for these models"),
        ("more", 0, 201, 200, "undecided"),
        ("more", 20, 290, 200, "undecided"),
        ("more", 20, 360, 200, "holds for these models"),
        ("no less", 1, 200, 200, "holds for these models"),
        ("no less", 1, 196, 200, "undecided"),
        ("no less", 1, 150, 200, "does not for these models"),
        ("alike", 2, 200, 200, "holds for these models"),
        ("alike", 2, 100, 200, "does not for these models"),
        ("alike", 2, 300, 200, "does not for these models"),
        ("alike", 2, 193, 200, "undecided"),
    ],
)
def test_a_claim_holds_or_does_not_or_is_undecided(
    scores_of: Scores, direction: str, size: float, one: int, two: int, verdict: str
) -> None:
    claim = replace(CLAIM, direction=direction, size=size)
    (line,) = claim_table(scores_of({ONE: one, TWO: two}), [claim]).to_dict("records")
    assert line["verdict"] == verdict
    assert line["effect"] == pytest.approx((one - two) / 4)
    assert line["ci_low"] < line["effect"] < line["ci_high"]
    assert line["trainings"] == "1 and 1"


def test_three_trainings_a_side_speak_of_the_defense(scores_of: Scores) -> None:
    cells = {(f"{name}{seed}", "pgd-20", ""): 300 - 100 * k for k, name in enumerate(("one", "two")) for seed in SEEDS}
    (line,) = claim_table(scores_of(cells), [CLAIM]).to_dict("records")
    assert (line["trainings"], line["verdict"]) == ("3 and 3", "holds")
    apart = {**cells, ("one", "pgd-20", ""): 390, ("one-seed1", "pgd-20", ""): 150}
    assert claim_table(scores_of(apart), [CLAIM])["verdict"].tolist() == ["undecided"]


SEEDS = ("", "-seed1", "-seed2")


def test_best_and_last_epochs_of_a_training_are_a_pair(scores_of: Scores) -> None:
    counts = {"": 150, "-seed1": 250, "-seed2": 350}
    cells = {(f"one{seed}", "pgd-20", ""): count for seed, count in counts.items()}
    cells |= {(f"one{seed}-last", "pgd-20", ""): count - 20 for seed, count in counts.items()}
    claim = replace(CLAIM, second=Measure.parse("one-last: pgd-20"))
    (line,) = claim_table(scores_of(cells), [claim]).to_dict("records")
    assert (line["effect"], line["verdict"]) == (pytest.approx(5.0), "holds")


def test_a_drop_is_compared_with_a_drop_and_clean_accuracy_is_any_cases(scores_of: Scores) -> None:
    cells = {(name, attack, ""): count for name, attack, count in DROPS}
    drop = replace(CLAIM, first=Measure.parse("one: pgd-20 - fgsm"), second=Measure.parse("two: pgd-20 - fgsm"))
    clean = replace(
        CLAIM, first=Measure.parse("one: clean"), second=Measure.parse("two: clean"), direction="alike", size=2
    )
    table = claim_table(scores_of(cells), [drop, clean])
    assert table["effect"].tolist() == pytest.approx([25.0, 0.0])
    assert table["verdict"].tolist() == ["holds for these models"] * 2


DROPS = [("one", "pgd-20", 350), ("one", "fgsm", 200), ("two", "pgd-20", 350), ("two", "fgsm", 300)]


def test_a_transfer_attack_is_of_its_source(scores_of: Scores) -> None:
    cells = {("one", "pgd-20", "natural"): 380, ("one", "pgd-20", "madry"): 200, ONE: 100}
    claims = [
        replace(CLAIM, first=Measure.parse("one: pgd-20 from natural"), second=Measure.parse(second))
        for second in ("one: pgd-20", "one: pgd-20 from madry", "one: pgd-20 from trades-b6")
    ]
    assert claim_table(scores_of(cells), claims)["effect"].tolist() == pytest.approx([70.0, 45.0])


def test_models_of_two_networks_are_not_compared(scores_of: Scores) -> None:
    cells = {ONE: 300, TWO: 200}
    assert len(claim_table(scores_of(cells, one="wide", two="wide"), [CLAIM])) == 1
    assert claim_table(scores_of(cells, one="wide"), [CLAIM]).empty


def test_verdicts_are_corrected_for_all_claims_of_the_table(scores_of: Scores) -> None:
    cells = {ONE: 212, TWO: 200}
    alone = claim_table(scores_of(cells), [CLAIM])
    beside = claim_table(scores_of(cells), [CLAIM] * 40)
    assert alone["verdict"].tolist() == ["holds for these models"]
    assert set(beside["verdict"]) == {"undecided"}
    assert beside["p_holm"].tolist() == pytest.approx([40 * alone["p"][0]] * 40)


def test_people_read_what_was_asked_measured_and_decided(scores_of: Scores) -> None:
    table = claim_table(scores_of({ONE: 300, TWO: 200}), [CLAIM])
    text = claims_markdown(table)
    assert "one is more robust than two (a paper)" in text
    assert "above 0" in text
    assert "+25.00 [" in text
    assert "+3.00" in text
    assert "Of 1 claims that the models here can test, 1 hold, 0 do not, 0 are undecided" in claims_note(table)


def test_a_suite_without_such_models_has_no_table(scores_of: Scores) -> None:
    assert claim_table(scores_of({ONE: 300}), [CLAIM]).empty
