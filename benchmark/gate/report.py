"""The gate's results for people and for CI: a table, JUnit XML, SARIF, Markdown, and GitHub's annotations."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from benchmark.gate.question import Kind, Outcome
from benchmark.gate.results import Result
from benchmark.gate.sarif import REPORTED, message, write_sarif
from benchmark.gate.words import counted
from model_zoo.files.atomic import atomic_write


@dataclass(frozen=True)
class GateReport:
    """A run of the gate.

    Args:
        title: what was compared with what. results: in display order.
        note: error rates, images and passes. seconds: how long it took.
        failing: the outcomes that fail the run.
        is_screen: whether the run is one that can fail and decides nothing else.
    """

    title: str
    results: Sequence[Result]
    note: str
    seconds: float
    failing: Collection[Outcome] = (Outcome.FAIL, Outcome.OPEN)
    is_screen: bool = False

    @property
    def passed(self) -> bool:
        """Whether no outcome fails the run."""
        return not any(result.outcome in self.failing for result in self.results)

    @property
    def verdict(self) -> str:
        """One line."""
        failed = [result for result in self.results if result.outcome is Outcome.FAIL]
        if any(result.question.kind is Kind.CANARY for result in failed):
            return "gate failed: the attack became weaker"
        if failed:
            return "gate failed: " + ", ".join(dict.fromkeys(result.question.subject for result in failed))
        if self.is_screen:
            return "screen only: no clear drop, which is no pass; a run without --screen decides"
        found = [result.outcome for result in self.results]
        undecided = [state for state in _UNDECIDED if state in found]
        failing = [state for state in undecided if state in self.failing]
        named = [f"{counted(found.count(state), 'question')} {_UNDECIDED[state]}" for state in failing or undecided]
        if failing:
            return f"gate failed: {' and '.join(named)}; {_REMEDIES[failing[0]]}, or --undecided pass"
        return " and ".join(["gate passed, with " + named[0], *named[1:]]) if named else "gate passed"


_UNDECIDED = {Outcome.OPEN: "undecided when the time was up", Outcome.INCONCLUSIVE: "inconclusive on all images"}
_REMEDIES = {
    Outcome.OPEN: "give it more --budget",
    Outcome.INCONCLUSIVE: "record more images (gate update --models all --examples N)",
}


def table(report: GateReport) -> str:
    """The results as a Markdown table."""
    rows = [
        {
            "model": result.question.subject,
            "question": result.question.kind.value,
            "outcome": result.outcome.value,
            "images": result.seen or "-",
            "before": _number(result.before),
            "now": _number(result.now),
            "change (95% interval)": "-"
            if result.before is None or result.now is None
            else f"{result.now - result.before:+.2f} ({_signed(result.low)} to {_signed(result.high)})",
            "p fail": _p(result.p_fail),
            "p pass": _p(result.p_pass),
            "why": result.words,
        }
        for result in report.results
    ]
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def text(report: GateReport) -> str:
    """What is printed."""
    return "\n\n".join([table(report), *_failures(report), f"{report.note}\n{report.verdict}"])


def _failures(report: GateReport) -> list[str]:
    """A paragraph for each model that failed: which images fell, and how it is recorded anew."""
    return [
        "\n".join([f"{result.question.subject}: {result.fell or result.words}", *_renewal(result)])
        for result in report.results
        if result.fell or result.renew
    ]


def _renewal(result: Result) -> list[str]:
    return [f"If that is meant, record it: {result.renew}"] if result.renew else []


def append_summary(report: GateReport, path: Path) -> None:
    """Append the Markdown summary to a file, as $GITHUB_STEP_SUMMARY wants it."""
    mark = ":white_check_mark:" if report.passed else ":x:"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        parts = [f"## {mark} {report.title}", report.verdict, table(report), *_failures(report), report.note]
        file.write("\n\n".join(parts) + "\n")


def annotations(report: GateReport) -> list[str]:
    """GitHub's workflow commands: an error for what fails the run, a warning for what is undecided and does not."""
    return [
        f"::{'error' if f.outcome in report.failing else 'warning'} "
        f"title={_property(f'robustness gate: {f.question.subject}')}::{_data(message(f))}"
        for f in report.results
        if f.outcome in REPORTED
    ]


def write_junit(report: GateReport, path: Path) -> None:
    """JUnit XML: a test case for each question; an undecided one is skipped, or an error where that fails the run."""
    undecided = {state: "error" if state in report.failing else "skipped" for state in _UNDECIDED}
    elements = {Outcome.FAIL: "failure", Outcome.VOID: "skipped", **undecided}
    written = [elements.get(result.outcome) for result in report.results]
    counts = {
        "tests": str(len(report.results)),
        "failures": str(written.count("failure")),
        "errors": str(written.count("error")),
        "skipped": str(written.count("skipped")),
        "time": f"{report.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "robustness gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": report.title, **counts})
    for result in report.results:
        names = {"classname": f"gate.{result.question.kind}", "name": result.question.subject, "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        element = elements.get(result.outcome)
        if element is None:
            ElementTree.SubElement(case, "system-out").text = f"{result.words}\n{_details(result)}"
            continue
        kind = {} if element == "skipped" else {"type": result.question.kind}
        reason = ElementTree.SubElement(case, element, {**kind, "message": result.words})
        if element != "skipped":
            reason.text = _details(result)
    ElementTree.indent(root)
    atomic_write(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def publish(
    report: GateReport, baseline: Path, *, junit: Path | None, sarif: Path | None, summary: Path | None
) -> None:
    """Print the report, and write it where it is asked for."""
    print(text(report))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print("\n".join(annotations(report)))
    if junit is not None:
        write_junit(report, junit)
    if sarif is not None:
        write_sarif(report.results, report.failing, baseline, sarif)
    github = os.environ.get("GITHUB_STEP_SUMMARY")
    for path in dict.fromkeys(path for path in (summary, Path(github) if github else None) if path is not None):
        append_summary(report, path)


def _details(result: Result) -> str:
    if result.before is None:
        return result.words
    was = "asked for" if result.question.kind is Kind.THRESHOLD else "robust before"
    return (
        f"{result.seen} images: {_number(result.before)}% {was}, {_number(result.now)}% now; "
        f"change {_signed(result.low)} to {_signed(result.high)} points; "
        f"p of no failure {_p(result.p_fail)}, of more than is tolerated {_p(result.p_pass)}"
        + "".join(f"\n{line}" for line in (result.fell, *_renewal(result)) if line)
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _data(words: str) -> str:
    """A message as a workflow command takes it."""
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    """A property's value as a workflow command takes it."""
    return _data(words).replace(":", "%3A").replace(",", "%2C")
