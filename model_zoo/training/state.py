"""What a training carries from epoch to epoch, on disk: a killed one goes on from it."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from model_zoo.files.atomic import atomic_write, file_of
from model_zoo.weights.torch_file import find_hostile_content

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """Saved after every epoch; all lists and weights are as of its end.

    Args:
        model, best: weights of the last and the best epoch; best_score: what the best one was chosen by.
        optimizer: its state.
        curve: one row an epoch.
        seconds: wall-clock time of the epochs, over all runs that they took.
    """

    model: Weights
    optimizer: dict[str, Any]
    best: Weights
    best_score: tuple[float, float] = (-1.0, -1.0)
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def weights_of(model: nn.Module) -> Weights:
    """A copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def progress_file(stem: Path) -> Path:
    """Where it is kept."""
    return file_of(stem, ".training.pt")


def save(stem: Path, settings: Mapping[str, Any], progress: Progress) -> None:
    """Write what resuming needs, and the learning curve as CSV."""
    buffer = io.BytesIO()
    torch.save({"settings": json.dumps(settings, sort_keys=True), **vars(progress)}, buffer)
    atomic_write(progress_file(stem), buffer.getvalue())
    curve = pd.DataFrame(progress.curve).round(4).to_csv(index=False, lineterminator="\n")
    atomic_write(file_of(stem, ".csv"), curve.encode())


def resume(stem: Path, settings: Mapping[str, Any]) -> Progress | None:
    """What an interrupted run with the same settings left. Raises: InputError, which names what differs, if not."""
    path = progress_file(stem)
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        if reason := find_hostile_content(data):
            raise ValueError(reason)
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        left = saved.pop("settings")
        progress = Progress(**saved)
    except Exception as error:  # damaged bytes fail in any of pickle's, zip's and torch's ways
        raise InputError(
            f"{path} is damaged ({type(error).__name__}); remove it to train from the beginning"
        ) from error
    now = json.loads(json.dumps(settings))
    if differing := list(_differences(json.loads(left), now)):
        raise InputError(
            f"{path} is of a training with {'; '.join(differing[:3])}; finish that one as it began, remove the file, "
            "or use another --name"
        )
    return progress


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """What two nested settings have differently, in words."""
    for name in sorted(then.keys() | now.keys()):
        one, other, named = then.get(name), now.get(name), f"{place}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{named}.")
        elif one != other and name == "images":
            yield "other training or validation images"
        elif one != other:
            yield f"{named} {one}, not {other}"


def forget(stem: Path) -> None:
    """Remove what resuming needs, once the model is registered."""
    progress_file(stem).unlink(missing_ok=True)
