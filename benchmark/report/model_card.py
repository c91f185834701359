"""A trained model in the format of the Hugging Face hub: what builds it, and what it withstands."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from model_zoo.hub import LIBRARY
from model_zoo.model_spec import ModelSpec

TEMPLATE = Path(__file__).with_name("model_card.md")


@dataclass(frozen=True)
class Measured:
    """What the tables of a suite say of a model; accuracies in percent.

    Args:
        scores: its rows of scores.csv; shown: its row of the leaderboard.
    """

    scores: pd.DataFrame
    shown: "pd.Series[Any]"

    @property
    def threat(self) -> str:
        """The norm, and epsilon in pixel scale."""
        first = self.scores.iloc[0]
        return f"{first['norm']} {first['epsilon']:.6g}"

    def attacks(self) -> list[dict[str, Any]]:
        """What each attack left, white-box ones first."""
        cells = zip(self.scores["attack"], self.scores["source_model"], strict=True)
        names = [f"{attack} from {source}" if isinstance(source, str) else attack for attack, source in cells]
        rows = zip(names, self.scores["robust_acc"], self.scores["n"], strict=True)
        return [{"name": name, "robust": robust, "n": n} for name, robust, n in rows]


def hub_config(spec: ModelSpec, classes: int) -> bytes:
    """config.json: what `--model hf:FOLDER` builds the network from."""
    about = {"architecture": spec.architecture, "classes": classes, "dataset": spec.dataset, "defense": spec.defense}
    return (json.dumps({"library_name": LIBRARY, **about}, indent=1) + "\n").encode()


def model_card(spec: ModelSpec, training: Mapping[str, Any], suite: str, measured: Measured) -> bytes:
    """README.md of a repository: metadata in YAML, then prose.

    Args:
        training: of the model's card: command and settings.
        suite, measured: what its numbers were measured on, and what they are.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    shown = measured.shown
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        library=LIBRARY,
        spec=spec,
        training={"command": "", **training},
        recipe=training.get("settings", {}).get("recipe", {}),
        suite=suite,
        threat=measured.threat,
        clean=round(float(shown["clean"]), 2),
        worst=round(float(shown["worst case"]), 2),
        interval=f"[{shown['ci_low']:.2f}, {shown['ci_high']:.2f}]",
        n=int(shown["n"]),
        attacks=measured.attacks(),
        flags=shown["flags"] if pd.notna(shown["flags"]) else "",
    )
    return text.encode()
