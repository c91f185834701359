"""The gate's results as CI reads them."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped

from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.report import GateReport, annotations, append_summary, publish, text, write_junit
from benchmark.gate.results import Result, sanity_failure


def result(kind: Kind, name: str, outcome: Outcome, words: str, *numbers: float) -> Result:
    seen, before, now, low, high, p_fail, p_pass = numbers
    return Result(Question(kind, name), outcome, words, int(seen), before, now, low, high, p_fail, p_pass)


REGRESSION, CANARY, PASS, FAIL, OPEN = Kind.REGRESSION, Kind.CANARY, Outcome.PASS, Outcome.FAIL, Outcome.OPEN
INCONCLUSIVE = Outcome.INCONCLUSIVE
FELL = result(REGRESSION, "mine", FAIL, "it fell by 9.00 points & <more>", 100, 60.0, 51.0, -12.0, -6.0, 0.001, 1.0)
FELL = replace(FELL, fell="9 images fell, 0 rose; by class: 3 (9)", renew="python run_benchmark.py gate update")
FINE = result(REGRESSION, "other", PASS, "no drop beyond 1 points", 100, 60.0, 60.0, -3.0, 3.0, 1.0, 0.04)
LATE = result(REGRESSION, "third", OPEN, "undecided when the time was up", 50, 60.0, 60.0, -9.0, 9.0, 1.0, 0.4)
UNSURE = result(REGRESSION, "fourth", INCONCLUSIVE, "inconclusive: 200 images", 200, 60.0, 55.5, -9.0, 0.5, 0.05, 1.0)
WEAK = result(CANARY, "canary-robust", FAIL, "the attack became weaker: 9 of 40", 100, 60.0, 69.0, 3.0, 12.0, 0.01, 1.0)


def report(*results: Result, failing: Collection[Outcome] = (FAIL,), is_screen: bool = False) -> GateReport:
    return GateReport("robustness gate: digits against baseline.json", results, "the note", 1.5, failing, is_screen)


def test_the_verdict_says_what_failed() -> None:
    assert report(FINE).verdict == "gate passed"
    assert report(FINE, LATE).verdict == "gate passed, with 1 question undecided when the time was up"
    assert report(LATE, LATE, UNSURE).verdict == (
        "gate passed, with 2 questions undecided when the time was up and 1 question inconclusive on all images"
    )
    late = report(FINE, LATE, UNSURE, failing=(FAIL, OPEN))
    assert not late.passed
    assert late.verdict == (
        "gate failed: 1 question undecided when the time was up; give it more --budget, or --undecided pass"
    )
    unsure = report(FINE, UNSURE, failing=(FAIL, OPEN, INCONCLUSIVE))
    assert not unsure.passed
    assert unsure.verdict.startswith("gate failed: 1 question inconclusive on all images; record more images")
    assert report(LATE, is_screen=True).verdict.startswith("screen only: no clear drop, which is no pass")
    assert report(FELL, LATE, is_screen=True).verdict == "gate failed: mine"
    assert report(FELL, FINE, sanity_failure("third", "collapsed")).verdict == "gate failed: mine, third"
    assert report(FELL, WEAK).verdict == "gate failed: the attack became weaker"


def test_a_consumer_reads_the_junit_file(tmp_path: Path) -> None:
    write_junit(report(FELL, FINE, LATE, UNSURE), tmp_path / "deep" / "gate.xml")
    xml = JUnitXml.fromfile(str(tmp_path / "deep" / "gate.xml"))
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (4, 1, 0, 2)
    (suite,) = list(xml)
    assert suite.name == "robustness gate: digits against baseline.json"
    failed, passed, late, unsure = list(suite)
    assert (failed.classname, failed.name) == ("gate.regression", "mine")
    (failure,) = failed.result
    assert isinstance(failure, Failure)
    assert failure.message == "it fell by 9.00 points & <more>"
    assert "60.00% robust before, 51.00% now" in failure.text
    assert failure.text.endswith(f"{FELL.fell}\nIf that is meant, record it: {FELL.renew}")
    assert passed.is_passed
    assert isinstance(late.result[0], Skipped)
    assert isinstance(unsure.result[0], Skipped)


def test_an_open_question_that_fails_the_run_is_an_error_to_a_consumer(tmp_path: Path) -> None:
    write_junit(report(FINE, LATE, failing=(FAIL, OPEN)), tmp_path / "gate.xml")
    xml = JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (2, 0, 1, 0)
    _, late = list(next(iter(xml)))
    assert isinstance(late.result[0], Error)
    assert annotations(report(LATE, failing=(FAIL, OPEN)))[0].startswith("::error ")


def test_annotations_are_escaped_as_github_wants_it() -> None:
    odd = Result(Question(REGRESSION, "a,b:c"), FAIL, "100% worse\nindeed")
    assert annotations(report(odd, FINE, LATE)) == [
        "::error title=robustness gate%3A a%2Cb%3Ac::100%25 worse%0Aindeed",
        "::warning title=robustness gate%3A third::undecided when the time was up",
    ]


def test_the_summary_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    append_summary(report(FELL), path)
    assert path.read_text().startswith("before\n## :x: robustness gate: digits against baseline.json\n")
    assert "-9.00 (-12.00 to -6.00)" in path.read_text()


def test_on_github_the_summary_and_the_annotations_go_where_it_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    publish(report(FELL), Path("b.json"), junit=None, sarif=None, summary=tmp_path / "mine.md")
    assert "::error title=" in capsys.readouterr().out
    assert (tmp_path / "step.md").read_text() == (tmp_path / "mine.md").read_text()


def test_elsewhere_only_the_table_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    collapsed = sanity_failure("third", "collapsed")
    publish(report(FELL, collapsed), Path("b.json"), junit=None, sarif=None, summary=None)
    assert capsys.readouterr().out == text(report(FELL, collapsed)) + "\n"


def test_a_failure_says_below_the_table_which_images_fell_and_how_to_record_it() -> None:
    below = text(report(FELL, FINE)).split("\n\n")[1]
    assert below == f"mine: {FELL.fell}\nIf that is meant, record it: {FELL.renew}"
