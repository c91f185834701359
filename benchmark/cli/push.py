"""What the command `push` does: a trained model and what it withstands, into a folder that `hf upload` takes."""

import json
from pathlib import Path

import pandas as pd

from attacks.errors import InputError
from attacks.names import lookup
from benchmark.cli.options import Shared
from benchmark.data.datasets import DATASETS
from benchmark.report.model_card import Measured, hub_config, model_card
from benchmark.suites.registry import SUITES
from model_zoo.files.atomic import atomic_write, file_of
from model_zoo.hub import WEIGHTS
from model_zoo.load import find_checkpoint
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import model_spec


def push(shared: Shared, *, models: str, suite: str, folder: Path) -> None:
    """Write weights, config.json and a model card in the hub's format."""
    chosen = lookup(suite, SUITES, "suite")
    spec = model_spec(models, chosen.name, shared.checkpoint_dir)
    path = find_checkpoint(spec, shared.checkpoint_dir)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected safetensors, got {path.suffix}; push a model that was trained here")
    card = file_of(path.with_suffix(""), ".json")
    if not card.is_file():
        raise InputError(f"model {spec.name}: expected its card at {card}, found none; push a trained model")
    measured = _measured(spec, shared.results_dir / chosen.name, chosen.name)
    training = json.loads(card.read_bytes()).get("training", {})
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / WEIGHTS, path.read_bytes())
    atomic_write(folder / "config.json", hub_config(spec, DATASETS[spec.dataset].classes))
    atomic_write(folder / "README.md", model_card(spec, training, chosen.name, measured))
    print(f"{folder}: {WEIGHTS}, config.json, README.md; upload it: hf upload USER/{spec.name} {folder}")


def _measured(spec: ModelSpec, folder: Path, suite: str) -> Measured:
    """What the tables of a suite say of the model with these weights. Raises: InputError where they say nothing."""
    scores, board = folder / "scores.csv", folder / "leaderboard.csv"
    rows = pd.read_csv(scores) if scores.is_file() else pd.DataFrame(columns=["model", "checkpoint_sha256"])
    rows = rows[(rows["model"] == spec.name) & (rows["checkpoint_sha256"] == spec.sha256)]
    if rows.empty:
        raise InputError(
            f"expected the robust accuracy of {spec.name}, with these weights, in {scores}, found none; measure: "
            f"python run_benchmark.py --suite {suite} --models {spec.name}"
        )
    shown = pd.read_csv(board)
    return Measured(rows, shown[shown["model"] == spec.name].iloc[0])
