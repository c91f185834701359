"""The gate's results as code scanning reads them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, ValidationError

from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.results import Result, sanity_failure
from benchmark.gate.sarif import write_sarif

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
LOCATION = {
    "type": "object",
    "required": ["physicalLocation"],
    "properties": {
        "physicalLocation": {
            "required": ["artifactLocation"],
            "properties": {
                "artifactLocation": {"required": ["uri"], "properties": {"uri": {"type": "string"}}},
                "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
            },
        }
    },
}
RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": TEXT,
        "locations": {"type": "array", "minItems": 1, "items": LOCATION},
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
DRIVER = {
    "required": ["name", "rules"],
    "properties": {"rules": {"type": "array", "items": {"required": ["id", "shortDescription"]}}},
}
RUN = {
    "required": ["tool", "results"],
    "properties": {
        "tool": {"required": ["driver"], "properties": {"driver": DRIVER}},
        "results": {"type": "array", "items": RESULT},
    },
}
LOG = Draft7Validator(
    {
        "type": "object",
        "required": ["$schema", "version", "runs"],
        "properties": {"version": {"const": "2.1.0"}, "runs": {"type": "array", "minItems": 1, "items": RUN}},
    }
)
"""What SARIF 2.1.0 and code scanning require of the parts that are written."""

FELL = Result(
    Question(Kind.REGRESSION, "mine"), Outcome.FAIL, "it fell", fell="9 images fell", renew="gate update --models mine"
)
FINE = replace(FELL, question=Question(Kind.REGRESSION, "other"), outcome=Outcome.PASS)
UNSURE = Result(Question(Kind.THRESHOLD, "third"), Outcome.INCONCLUSIVE, "inconclusive: 200 images")


def written(path: Path, *results: Result, baseline: Path = Path("b.json")) -> dict[str, Any]:
    write_sarif(results, (Outcome.FAIL,), baseline, path)
    log = json.loads(path.read_text())
    LOG.validate(log)
    run: dict[str, Any] = log["runs"][0]
    return run


def test_what_did_not_pass_is_a_result_by_a_rule_at_the_baseline(tmp_path: Path) -> None:
    run = written(tmp_path / "gate.sarif", FELL, FINE, UNSURE, sanity_failure("fourth", "collapsed"))
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert [(found["ruleId"], found["level"]) for found in run["results"]] == [
        ("robustness/regression", "error"),
        ("robustness/threshold", "warning"),
        ("robustness/untrustworthy-model", "error"),
    ]
    assert all(rules[found["ruleIndex"]] == found["ruleId"] for found in run["results"])
    assert run["results"][0]["message"]["text"] == (
        "mine: it fell; 9 images fell; if that is meant, record it: gate update --models mine"
    )
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "b.json"}


def test_a_run_in_which_all_passed_is_a_log_without_results(tmp_path: Path) -> None:
    assert written(tmp_path / "gate.sarif", FINE)["results"] == []


def test_the_place_is_relative_to_the_working_folder_and_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for baseline, uri in (
        (tmp_path / "my models" / "b.json", "my%20models/b.json"),
        (tmp_path.parent / "b.json", (tmp_path.parent / "b.json").as_uri()),
    ):
        run = written(tmp_path / "gate.sarif", FELL, baseline=baseline)
        assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_a_log_of_another_structure_is_seen(tmp_path: Path) -> None:
    write_sarif([FELL], (Outcome.FAIL,), Path("b.json"), tmp_path / "gate.sarif")
    log = json.loads((tmp_path / "gate.sarif").read_text())
    del log["runs"][0]["results"][0]["message"]
    with pytest.raises(ValidationError):
        LOG.validate(log)
