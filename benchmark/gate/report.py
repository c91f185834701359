"""The gate's findings for people and for CI: a table, JUnit XML, Markdown, and GitHub's annotations."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from benchmark.gate.findings import Finding
from benchmark.gate.question import Kind, Outcome
from model_zoo.files.atomic import atomic_write


@dataclass(frozen=True)
class Report:
    """A run of the gate.

    Args:
        title: what was compared with what. findings: in display order.
        note: error rates, images and passes. seconds: how long it took.
        passes_open: whether a run passes with questions that were open when the time was up.
    """

    title: str
    findings: Sequence[Finding]
    note: str
    seconds: float
    passes_open: bool = False

    @property
    def passed(self) -> bool:
        failing = (Outcome.FAIL,) if self.passes_open else (Outcome.FAIL, Outcome.OPEN)
        return not any(finding.outcome in failing for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line."""
        failed = [finding for finding in self.findings if finding.outcome is Outcome.FAIL]
        if not failed:
            late = sum(finding.outcome is Outcome.OPEN for finding in self.findings)
            undecided = f"{late} questions undecided when the time was up"
            if not self.passed:
                return f"gate failed: {undecided}; give it more --budget, or let them pass by --undecided pass"
            return "gate passed" + (f", with {undecided}" if late else "")
        if any(finding.question.kind is Kind.CANARY for finding in failed):
            return "gate failed: the attack became weaker"
        return "gate failed: " + ", ".join(dict.fromkeys(finding.question.subject for finding in failed))


def table(report: Report) -> str:
    """The findings as a Markdown table."""
    rows = [
        {
            "model": finding.question.subject,
            "question": finding.question.kind.value,
            "outcome": finding.outcome.value,
            "images": finding.seen or "-",
            "before": _number(finding.before),
            "now": _number(finding.now),
            "change (95% interval)": "-"
            if finding.before is None or finding.now is None
            else f"{finding.now - finding.before:+.2f} ({_signed(finding.low)} to {_signed(finding.high)})",
            "p fail": _p(finding.p_fail),
            "p pass": _p(finding.p_pass),
            "why": finding.words,
        }
        for finding in report.findings
    ]
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def text(report: Report) -> str:
    """What is printed."""
    return f"{table(report)}\n\n{report.note}\n{report.verdict}"


def append_summary(report: Report, path: Path) -> None:
    """Append the Markdown summary to a file, as $GITHUB_STEP_SUMMARY wants it."""
    mark = ":white_check_mark:" if report.passed else ":x:"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"## {mark} {report.title}\n\n{report.verdict}\n\n{table(report)}\n\n{report.note}\n")


def annotations(report: Report) -> list[str]:
    """GitHub's workflow commands: an error for what fails the run, a warning for an open question that does not."""
    levels = {Outcome.FAIL: "error", Outcome.OPEN: "warning" if report.passes_open else "error"}
    return [
        f"::{levels[f.outcome]} title={_property(f'robustness gate: {f.question.subject}')}::{_data(f.words)}"
        for f in report.findings
        if f.outcome in levels
    ]


def write_junit(report: Report, path: Path) -> None:
    """JUnit XML: a test case for each question; an open one is skipped, or an error where that fails the run."""
    elements = {
        Outcome.FAIL: "failure",
        Outcome.VOID: "skipped",
        Outcome.OPEN: "skipped" if report.passes_open else "error",
    }
    written = [elements.get(finding.outcome) for finding in report.findings]
    counts = {
        "tests": str(len(report.findings)),
        "failures": str(written.count("failure")),
        "errors": str(written.count("error")),
        "skipped": str(written.count("skipped")),
        "time": f"{report.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "robustness gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": report.title, **counts})
    for finding in report.findings:
        names = {"classname": f"gate.{finding.question.kind}", "name": finding.question.subject, "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        element = elements.get(finding.outcome)
        if element is None:
            ElementTree.SubElement(case, "system-out").text = f"{finding.words}\n{_details(finding)}"
            continue
        kind = {} if element == "skipped" else {"type": finding.question.kind}
        reason = ElementTree.SubElement(case, element, {**kind, "message": finding.words})
        if element != "skipped":
            reason.text = _details(finding)
    ElementTree.indent(root)
    atomic_write(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def publish(report: Report, *, junit: Path | None, summary: Path | None) -> None:
    """Print the report, and write it where it is asked for."""
    print(text(report))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print("\n".join(annotations(report)))
    if junit is not None:
        write_junit(report, junit)
    github = os.environ.get("GITHUB_STEP_SUMMARY")
    for path in dict.fromkeys(path for path in (summary, Path(github) if github else None) if path is not None):
        append_summary(report, path)


def _details(finding: Finding) -> str:
    if finding.before is None:
        return finding.words
    was = "asked for" if finding.question.kind is Kind.THRESHOLD else "robust before"
    return (
        f"{finding.seen} images: {_number(finding.before)}% {was}, {_number(finding.now)}% now; "
        f"change {_signed(finding.low)} to {_signed(finding.high)} points; "
        f"p of no failure {_p(finding.p_fail)}, of more than is tolerated {_p(finding.p_pass)}"
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
