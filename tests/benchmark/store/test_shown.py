"""Shown cases and selections: what is written is read back, and what is none of them is refused in one line."""

import json
from typing import Any

import pytest

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.store.selection import shown_case
from benchmark.store.shown import Selection, Shown, SuiteRecord, case_from, selection_from, suite_record_from
from benchmark.suites.case import EvalCase
from model_zoo.model_spec import ModelSpec

MODEL = ModelSpec(
    "natural",
    suites=("digits",),
    dataset="digits",
    architecture="digits-cnn",
    defense="natural",
    checkpoint="natural.safetensors",
    sha256="a" * 64,
)
CASE = EvalCase("digits", "digits", "c" * 64, 10, MODEL, MODEL, ATTACKS["fgsm"], ThreatModel("Linf", 8 / 255), 3)
SHOWN = shown_case(CASE, [1, 0, 2])
SELECTION = Selection("c" * 16, "Linf", 8 / 255, 3)


def test_a_shown_case_is_read_back_from_json_as_it_was() -> None:
    assert case_from(json.loads(json.dumps(SHOWN.to_dict()))) == SHOWN
    assert (SHOWN.cell, SHOWN.title) == ("natural/fgsm/", "natural/fgsm")


def test_passes_of_randomised_models_are_written_only_where_there_are_some() -> None:
    assert not {"judge_draws", "eot"} & set(SHOWN.to_dict())
    drawn = shown_case(EvalCase(**{**vars(CASE), "judge_draws": 20, "eot": 5}), [0])
    assert (drawn.to_dict()["judge_draws"], drawn.to_dict()["eot"]) == (20, 5)
    assert case_from(drawn.to_dict()) == drawn


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": "10"}, "expected n of a case"),
        ({"n": True}, "expected n of a case"),
        ({"rank": [0, "1"]}, "whole numbers as the rank"),
        ({"model": None}, "expected model of a case"),
        ({"networks": []}, "expected networks of a case"),
        ({"colour": "red"}, "none with 'colour'"),
    ],
)
def test_a_record_that_is_no_shown_case_is_refused_in_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        case_from({**SHOWN.to_dict(), **change})
    assert "\n" not in str(caught.value)


def test_a_record_that_lacks_a_field_is_refused_by_its_name() -> None:
    for name in SHOWN.to_dict():
        record = SHOWN.to_dict()
        del record[name]
        with pytest.raises(ValueError, match=f"one without {name}"):
            case_from(record)


def test_the_name_of_a_selection_is_pinned_and_read_back() -> None:
    assert SELECTION.text == "cccccccccccccccc Linf 0.03137254901960784 seed 3"
    assert SELECTION.difference == "epsilon-0.03137254901960784-seed-3"
    assert selection_from(SELECTION.text) == SELECTION


@pytest.mark.parametrize("text", ["", "made up", "c Linf 0.1 sown 3", "c Linf wide seed 3", "c Linf 0.1 seed x"])
def test_another_text_names_no_selection(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        selection_from(text)


def test_a_record_of_a_suite_is_read_back_in_display_order() -> None:
    later, first = shown_case(CASE, [2]), shown_case(EvalCase(**{**vars(CASE), "attack": ATTACKS["pgd-20"]}), [1])
    record = SuiteRecord(SELECTION, {SELECTION: Shown("last", (later, first))})
    read = suite_record_from(json.loads(json.dumps(record.to_dict())))
    assert read == SuiteRecord(SELECTION, {SELECTION: Shown("last", (first, later))})


@pytest.mark.parametrize(
    "record",
    [{}, {"selections": [], "shown": SELECTION.text}, {"selections": {SELECTION.text: 1}, "shown": SELECTION.text}],
)
def test_a_record_that_is_none_of_a_suite_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected selections of cases"):
        suite_record_from(record)
    with pytest.raises(ValueError, match="got none"):
        suite_record_from({"selections": {}, "shown": SELECTION.text})
