"""The gate's findings for people and for CI: a table, JUnit XML, Markdown, and GitHub's annotations."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from benchmark.findings import VOID, Finding
from benchmark.gate_rules import FAIL, OPEN
from model_zoo.checkpoint import atomic_write


@dataclass(frozen=True)
class Report:
    """A run of the gate.

    Args:
        title: what was compared with what. findings: in display order.
        note: error rates, images and passes. seconds: how long it took.
    """

    title: str
    findings: Sequence[Finding]
    note: str
    seconds: float

    @property
    def passed(self) -> bool:
        return not any(finding.outcome == FAIL for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line."""
        failed = [finding for finding in self.findings if finding.outcome == FAIL]
        if not failed:
            late = sum(finding.outcome == OPEN for finding in self.findings)
            return "gate passed" + (f", with {late} questions undecided when the time was up" if late else "")
        if any(finding.kind == "canary" for finding in failed):
            return "gate failed: the attack became weaker"
        return "gate failed: " + ", ".join(dict.fromkeys(finding.subject for finding in failed))


def table(report: Report) -> str:
    """The findings as a Markdown table."""
    rows = [
        {
            "model": finding.subject,
            "question": finding.kind,
            "outcome": finding.outcome,
            "images": finding.seen or "-",
            "before": _number(finding.before),
            "now": _number(finding.now),
            "change (95% interval)": "-"
            if finding.before is None or finding.now is None
            else f"{finding.now - finding.before:+.2f} ({_signed(finding.low)} to {_signed(finding.high)})",
            "p": "-" if finding.p is None else f"{finding.p:.2g}",
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
    """GitHub's workflow commands: an error for each failure, a warning for each question that was left open."""
    levels = {FAIL: "error", OPEN: "warning"}
    return [
        f"::{levels[f.outcome]} title={_property(f'robustness gate: {f.subject}')}::{_data(f.words)}"
        for f in report.findings
        if f.outcome in levels
    ]


def write_junit(report: Report, path: Path) -> None:
    """JUnit XML: a test case for each question."""
    counts = {
        "tests": str(len(report.findings)),
        "failures": str(sum(finding.outcome == FAIL for finding in report.findings)),
        "errors": "0",
        "skipped": str(sum(finding.outcome in (VOID, OPEN) for finding in report.findings)),
        "time": f"{report.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "robustness gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": report.title, **counts})
    for finding in report.findings:
        names = {"classname": f"gate.{finding.kind}", "name": finding.subject, "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if finding.outcome == FAIL:
            failure = ElementTree.SubElement(case, "failure", {"type": finding.kind, "message": finding.words})
            failure.text = _details(finding)
        elif finding.outcome in (VOID, OPEN):
            ElementTree.SubElement(case, "skipped", {"message": finding.words})
        else:
            ElementTree.SubElement(case, "system-out").text = f"{finding.words}\n{_details(finding)}"
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
    return (
        f"{finding.seen} images: {_number(finding.before)}% robust before, {_number(finding.now)}% now; "
        f"change {_signed(finding.low)} to {_signed(finding.high)} points, p = {finding.p:.3g}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _data(words: str) -> str:
    """A message as a workflow command takes it."""
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    """A property's value as a workflow command takes it."""
    return _data(words).replace(":", "%3A").replace(",", "%2C")
