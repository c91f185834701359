"""A trained model in the format of the Hugging Face hub: what builds it, and what it withstands."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from model_zoo.hub import LIBRARY
from model_zoo.model_spec import ModelSpec

TEMPLATE = Path(__file__).with_name("model_card.md")
NOT_ATTACKS = ("rank", "model", "defense", "architecture", "clean", "worst case", "ci_low", "ci_high", "flags", "n")
"""Columns of a leaderboard that are no attack's."""


def hub_config(spec: ModelSpec, classes: int) -> bytes:
    """config.json: what `--model hf:FOLDER` builds the network from."""
    about = {"architecture": spec.architecture, "classes": classes, "dataset": spec.dataset, "defense": spec.defense}
    return (json.dumps({"library_name": LIBRARY, **about}, indent=1) + "\n").encode()


def model_card(
    spec: ModelSpec, training: Mapping[str, Any], suite: str, threat: str, scores: Mapping[str, Any]
) -> bytes:
    """README.md of a repository: metadata in YAML, then prose.

    Args:
        training: of the model's card: command and settings.
        suite, threat: what its numbers were measured on.
        scores: its row of the leaderboard, accuracies in percent.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        library=LIBRARY,
        spec=spec,
        training={"command": "", **training},
        recipe=training.get("settings", {}).get("recipe", {}),
        suite=suite,
        threat=threat,
        scores=scores,
        attacks=[name for name, value in scores.items() if name not in NOT_ATTACKS and pd.notna(value)],
        flags=scores["flags"] if pd.notna(scores["flags"]) else "",
    )
    return text.encode()
