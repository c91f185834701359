"""The summary of packed verdicts: JSON that says a fact once and a case in one line, so that git shows changes."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

Line = dict[str, Any]

OF_A_CASE = ("model", "attack", "source_model", "key", "rank", "correct", "robust", "robust_last", "robust_single")
"""What stands in a case's own line in any event, and first, beside its passes."""

OF_A_MODEL = ("architecture", "checkpoint_sha256", "defense", "flags", "zero_gradients", "prediction")
"""What usually holds for all cases of a model."""


def factored(records: Sequence[Line]) -> Line:
    """`common`, `models`, `networks` and `cases`, of which `expanded` makes the records again."""
    networks = {name: network for record in records for name, network in record["networks"].items()}
    records = [
        {name: value for name, value in record.items() if name != "networks" or value != _networks(record, networks)}
        for record in records
    ]
    common = _without(OF_A_CASE, agreed(records))
    models: dict[str, Line] = {}
    for model in dict.fromkeys(record["model"] for record in records):
        own = agreed([record for record in records if record["model"] == model])
        models[model] = {name: own[name] for name in OF_A_MODEL if name in own and name not in common}
    lines = [_without((*common, *models[record["model"]]), record) for record in records]
    cases = [{**{name: line[name] for name in OF_A_CASE if name in line}, **line} for line in lines]
    return {"common": common, "models": models, "networks": networks, "cases": cases}


def expanded(line: Line, document: Line) -> Line:
    """The whole record of a case, from its line and what it has in common with others."""
    record = {**document["common"], **document["models"][line["model"]], **line}
    return {"networks": _networks(record, document["networks"]), **record} if document["networks"] else record


def agreed(records: Sequence[Line]) -> Line:
    """The fields that all records have, with the same value."""
    first, *others = records or [{}]
    return {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }


def digest_of(document: Line) -> str:
    """sha256 of the content, in hex, whatever the layout of the text."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def text_of(document: Line) -> str:
    """JSON with a line for each item of a list or table of objects."""
    parts = []
    for name, value in document.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        elif isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
            lines = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
            text = "{\n  " + ",\n  ".join(lines) + "\n }"
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _networks(record: Line, networks: Line) -> Line:
    return {name: networks[name] for name in (record["model"], record["source_model"]) if name in networks}


def _without(names: Sequence[str], record: Line) -> Line:
    return {name: value for name, value in record.items() if name not in names}
