"""What the command `push` does: a trained model and what it withstands, into a folder that `hf upload` takes."""

import json
from pathlib import Path

import pandas as pd

from attacks.errors import InputError
from attacks.names import lookup
from benchmark.cli.options import Shared
from benchmark.data.datasets import DATASETS
from benchmark.report.model_card import hub_config, model_card
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
    scores = _scores(spec, shared.results_dir / chosen.name / "leaderboard.csv", chosen.name)
    threat = f"{chosen.threat.norm} {chosen.threat.epsilon:.6g}"
    training = json.loads(card.read_bytes()).get("training", {})
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / WEIGHTS, path.read_bytes())
    atomic_write(folder / "config.json", hub_config(spec, DATASETS[spec.dataset].classes))
    atomic_write(folder / "README.md", model_card(spec, training, chosen.name, threat, scores))
    print(f"{folder}: {WEIGHTS}, config.json, README.md; upload it: hf upload USER/{spec.name} {folder}")


def _scores(spec: ModelSpec, path: Path, suite: str) -> dict[str, object]:
    """The model's row of a leaderboard. Raises: InputError where it was never measured."""
    board = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["model"])
    rows = board[board["model"] == spec.name]
    if rows.empty:
        raise InputError(
            f"expected the robust accuracy of {spec.name} in {path}, found none; measure it first: "
            f"python run_benchmark.py --suite {suite} --models {spec.name}"
        )
    return {str(name): value for name, value in rows.iloc[0].items()}
