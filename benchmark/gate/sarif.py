"""The gate's results in SARIF 2.1.0, which code scanning reads: a result for each question that did not pass."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmark.gate.question import Kind, Outcome
from benchmark.gate.results import Result
from model_zoo.files.atomic import atomic_write

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
REPORTED = (Outcome.FAIL, Outcome.OPEN, Outcome.INCONCLUSIVE)
RULES: Mapping[Kind, tuple[str, str]] = {
    Kind.REGRESSION: ("robustness/regression", "Robust accuracy fell by more than is tolerated."),
    Kind.THRESHOLD: ("robustness/threshold", "Robust accuracy is below what is required."),
    Kind.CANARY: ("robustness/weaker-attack", "The attack breaks less than it did, so it proves less."),
    Kind.SANITY: ("robustness/untrustworthy-model", "The model collapsed, or its gradients are masked."),
    Kind.SHOWN: ("robustness/attack-not-shown", "The attack is not shown to work on the model, so it proves nothing."),
}
"""What is asked, by its identifier, which stays as it is."""


def message(result: Result) -> str:
    """What is to be known of a result, in a line."""
    renewal = f"if that is meant, record it: {result.renew}" if result.renew else ""
    return "; ".join(part for part in (result.words, result.fell, renewal) if part)


def write_sarif(results: Sequence[Result], failing: Collection[Outcome], baseline: Path, path: Path) -> None:
    """Write a log whose results stand at the baseline's file: errors where they fail the run, else warnings."""
    rules = [
        {"id": name, "shortDescription": {"text": text}, "defaultConfiguration": {"level": "error"}}
        for name, text in RULES.values()
    ]
    driver = {"name": "robustness gate", "rules": rules}
    found = [_sarif_result(result, failing, baseline) for result in results if result.outcome in REPORTED]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": found}],
    }
    atomic_write(path, (json.dumps(log, indent=1) + "\n").encode())


def _sarif_result(result: Result, failing: Collection[Outcome], baseline: Path) -> dict[str, Any]:
    kind, model = result.question.kind, result.question.subject
    place = {"artifactLocation": {"uri": _uri(baseline)}, "region": {"startLine": 1}}
    return {
        "ruleId": RULES[kind][0],
        "ruleIndex": list(RULES).index(kind),
        "level": "error" if result.outcome in failing else "warning",
        "message": {"text": f"{model}: {message(result)}"},
        "locations": [
            {"physicalLocation": place, "logicalLocations": [{"name": model, "fullyQualifiedName": f"model {model}"}]}
        ],
        "partialFingerprints": {"question/v1": f"{kind}/{model}"},
    }


def _uri(file: Path) -> str:
    """Relative to the working folder where the file is below it, as code scanning wants it; else absolute."""
    absolute, folder = file.absolute(), Path.cwd()
    if not absolute.is_relative_to(folder):
        return absolute.as_uri()
    return quote(absolute.relative_to(folder).as_posix())
