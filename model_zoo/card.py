"""Cards: what is recorded of a trained model, beside its checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attacks.errors import InputError
from model_zoo.model_spec import ModelSpec

OPTIONAL = ("size", "randomized", "rejects", "quirks", "answers", "surrogate", "surrogate_code", "members")
"""Fields that a card leaves out where they say nothing: they are no text, or nothing that a card may say."""


def read_card(path: Path) -> ModelSpec:
    """The model that a card describes.

    A card is data: it names an architecture of ours and a file below its checkpoint folder, and never code to import.

    Raises: InputError for a file that is no card, or asks for more than that.
    """
    try:
        content = json.loads(path.read_bytes())
        fields = dict(content["model"])
        schedule = _schedule(content.get("training", {}))
        spec = ModelSpec(**{**fields, "suites": tuple(fields["suites"]), "schedule": schedule})
        texts = {name: value for name, value in vars(spec).items() if name not in ("suites", *OPTIONAL)}
        for name, value in (*texts.items(), *(("suites", suite) for suite in spec.suites)):
            if not isinstance(value, str) or not value.isprintable():
                raise ValueError(f"{name} that is no line of text")
        if spec.answers or spec.quirks is not None:
            raise ValueError("answers or quirks, which are a user's own model's")
        if spec.surrogate or spec.surrogate_code:
            raise ValueError("a surrogate, which a mask or the user gives")
        if spec.members:
            raise ValueError("members, which --sources names")
        if spec.code or Path(spec.checkpoint).is_absolute() or ".." in Path(spec.checkpoint).parts:
            raise ValueError("code or a file outside of the checkpoint folder, which a card may not name")
        if not isinstance(fields["suites"], list):
            raise ValueError(f"suites that are no list: {fields['suites']!r}")
        if not spec.checkpoint:
            raise ValueError("no checkpoint")
        if type(spec.size) is not int or spec.size < 0:
            raise ValueError(f"a size that is no number of bytes: {spec.size!r}")
        for name in ("randomized", "rejects"):
            if type(getattr(spec, name)) is not bool:
                raise ValueError(f"{name} that is neither true nor false: {getattr(spec, name)!r}")
        return spec
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: expected the card of a trained model, got {error}; remove it or train again"
        ) from None


def _schedule(training: Mapping[str, Any]) -> str:
    """How a card says that its model was trained, in a few words."""
    recipe = training.get("settings", {}).get("recipe", {})
    words = str(training.get("command", "")).split()
    name = words[words.index("--recipe") + 1] if "--recipe" in words else ""
    parts = [f"{name} recipe" if name else "", f"{recipe['epochs']} epochs" if "epochs" in recipe else ""]
    return ", ".join(part for part in parts if part)


def card(spec: ModelSpec, record: Mapping[str, Any]) -> bytes:
    """The bytes of a model's card: its spec, and how it was trained."""
    fields = {name: value for name, value in asdict(spec).items() if name not in OPTIONAL or value}
    return (json.dumps({"model": fields, "training": dict(record)}, indent=1) + "\n").encode()
