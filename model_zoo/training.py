"""The one training loop. Killed at any moment, it goes on from the last whole epoch, and ends with the same weights."""

import hashlib
import io
import json
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from model_zoo.architectures.registry import build, find
from model_zoo.bounds.certified import BOUNDS
from model_zoo.checkpoint import atomic_write, save_state_dict
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DefenseSpec
from model_zoo.recipes import Recipe

Weights = dict[str, Tensor]

VALIDATION_STREAM = 2**20
"""Validation attacks draw as if at this restart, which no epoch reaches."""


class LabelledImages(Protocol):
    """x (N, C, H, W) in [0, 1], y (N,) labels, index (N,) in the dataset."""

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def index(self) -> Tensor: ...
    @property
    def classes(self) -> int: ...


@dataclass(frozen=True)
class Training:
    """All that determines the weights.

    Args:
        defense: with its loss.
        params: of the loss.
        recipe: how long, how fast, on which network.
        threat: trained against.
        seed: of the initial weights, the order of the images, and all draws.
        images: digest of the training and validation images.
    """

    defense: DefenseSpec
    params: Mapping[str, float]
    recipe: Recipe
    threat: ThreatModel
    seed: int
    images: str

    def settings(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "defense": self.defense.name,
            "params": dict(self.params),
            "recipe": asdict(self.recipe),
            "threat": asdict(self.threat),
            "seed": self.seed,
            "images": self.images,
        }


@dataclass
class _Progress:
    """What is carried from epoch to epoch, and saved after each."""

    model: Weights
    optimizer: dict[str, Any]
    best: Weights
    best_score: tuple[float, float] = (-1.0, -1.0)
    curve: list[dict[str, float]] = field(default_factory=list)


def train(
    training: Training,
    images: LabelledImages,
    validation: LabelledImages,
    stem: Path,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    quiet: bool = False,
) -> str:
    """Train, or go on training, and write the best and the last checkpoint.

    Args:
        images, validation: disjoint; neither is test data.
        stem: path without suffix: STEM.safetensors (best by validation), STEM.last.safetensors, STEM.csv (the learning
            curve), STEM.training.pt (what resuming needs, until `forget_progress`).
        precision: of forward and backward passes; weights stay float32.

    Returns: the sha256 of the best checkpoint.
    Raises: InputError for an architecture of other images; and when the loss is not finite or the model ends at chance:
        the last good state is kept.
    """
    recipe = training.recipe
    expected, got = find(recipe.architecture).input_shape, tuple(images.x.shape[1:])
    if got != expected:
        raise InputError(
            f"architecture {recipe.architecture} expects images of shape {expected}, got {got}; use another"
        )
    x, y, index = (t.to(device) for t in (images.x, images.y, images.index))
    with _seeded(training.seed, device):
        model = build(recipe.architecture, images.classes).to(device)
    optimizer = _optimizer(recipe, model)
    resume = _progress_file(stem)
    progress = _resume(resume, training) or _Progress(_copy(model), optimizer.state_dict(), _copy(model))
    model.load_state_dict(progress.model)
    optimizer.load_state_dict(progress.optimizer)

    first = len(progress.curve) + 1
    batches = math.ceil(len(y) / recipe.batch_size)
    with tqdm(total=recipe.epochs * batches, initial=(first - 1) * batches, unit="batch", disable=quiet) as bar:
        for epoch in range(first, recipe.epochs + 1):
            lr = recipe.lr_at(epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with _seeded(hash_seed(training.seed, epoch), device):
                loss = _train_epoch(training, model, optimizer, x, y, index, epoch, precision, bar)
            clean, robust = _validate(training, model, validation, device, precision)
            score = (robust, clean) if training.defense.is_robust else (clean, robust)
            if score > progress.best_score:
                progress.best, progress.best_score = _copy(model), score
            progress.model, progress.optimizer = _copy(model), optimizer.state_dict()
            row = {"epoch": epoch, "lr": lr, "loss": loss, "validation_clean": clean, "validation_robust": robust}
            progress.curve.append(row)
            bar.set_postfix(loss=f"{loss:.3f}", clean=f"{clean:.1f}", robust=f"{robust:.1f}")
            _save(resume, training, progress)
            atomic_write(stem.with_name(stem.name + ".csv"), _curve_csv(progress))

    if progress.curve[-1]["validation_clean"] <= 100 / images.classes:
        raise InputError(
            f"the model ends at chance: {progress.curve[-1]['validation_clean']:.1f} clean validation accuracy; "
            f"no checkpoint was written; remove {resume} and train with a lower lr or more epochs (--set)"
        )
    metadata = {"settings": json.dumps(training.settings(), sort_keys=True)}
    save_state_dict(progress.model, stem.with_name(stem.name + ".last.safetensors"), metadata)
    return save_state_dict(progress.best, stem.with_name(stem.name + ".safetensors"), metadata)


def forget_progress(stem: Path) -> None:
    """Remove what resuming needs, once the model is registered."""
    _progress_file(stem).unlink(missing_ok=True)


def _train_epoch(
    training: Training,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    epoch: int,
    precision: torch.dtype,
    bar: "tqdm[Any]",
) -> float:
    """One pass over the images in an order of its own; the mean loss."""
    recipe = training.recipe
    total = 0.0
    model.train()
    order = torch.randperm(len(y)).to(x.device)
    for number, rows in enumerate(order.split(recipe.batch_size), start=1):
        draws = Draws.start(training.seed, index[rows], torch.full_like(index[rows], epoch))
        batch = augment(x[rows], draws) if recipe.augmentation == "crop-flip" else x[rows]
        attack = (recipe.inner_steps, recipe.inner_rel_step_size)
        ctx = TrainingContext(training.threat, draws, *attack, precision, epoch, recipe.epochs)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = training.defense.batch_loss(model, batch, y[rows], ctx, **training.params)
        if not loss.isfinite():
            raise InputError(
                f"the loss is {loss.item()} in epoch {epoch}, batch {number}; the state of epoch {epoch - 1} is kept; "
                "train with a lower lr (--set lr=...)"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
        bar.update()
    return total / len(y)


def _validate(
    training: Training, model: nn.Module, images: LabelledImages, device: torch.device, precision: torch.dtype
) -> tuple[float, float]:
    """Clean and robust accuracy in percent: certified where the defense has a bound, else under the inner attack.

    The attack has the same draws in every epoch.
    """
    recipe, bound = training.recipe, training.defense.bound
    clean = robust = 0
    model.eval()
    for rows in torch.arange(len(images.y)).split(500):
        x, y, index = (t[rows].to(device) for t in (images.x, images.y, images.index))
        with torch.no_grad():
            right = model(x).argmax(1) == y
        clean += int(right.sum())
        if bound is not None:
            robust += int(BOUNDS[bound](model, x, y, training.threat.epsilon).sum())
            continue
        draws = Draws.start(training.seed, index, torch.full_like(index, VALIDATION_STREAM))
        ctx = TrainingContext(training.threat, draws, recipe.inner_steps, recipe.inner_rel_step_size, precision)
        x_adv = ctx.craft(model, x, y, loss="cross-entropy", start="uniform")
        with torch.no_grad():
            robust += int((right & (model(x_adv).argmax(1) == y)).sum())
    return 100 * clean / len(images.y), 100 * robust / len(images.y)


def augment(x: Tensor, draws: Draws) -> Tensor:
    """Random crops after zero padding by an eighth of the side, and horizontal flips, drawn image by image.

    Args:
        x: (N, C, H, W), not modified.
    """
    n, _, height, width = x.shape
    pad = height // 8
    draw = draws.uniform((3,), stream=2)
    offset = (draw[:, :2] * (2 * pad + 1)).long()
    rows = offset[:, 0, None] + torch.arange(height, device=x.device)
    columns = offset[:, 1, None] + torch.arange(width, device=x.device)
    columns = torch.where(draw[:, 2, None] < 0.5, columns.flip(1), columns)
    padded = nn.functional.pad(x, [pad] * 4)
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def hash_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch, unlike that of any other epoch or run."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7], "little")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generator (initial weights, order, dropout) set by a seed, and left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
        ),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay),
    }
    if recipe.optimizer not in kinds:
        raise InputError(f"optimizer must be one of {', '.join(kinds)}, got {recipe.optimizer!r}")
    return kinds[recipe.optimizer]()


def _copy(model: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(path: Path, training: Training, progress: _Progress) -> None:
    buffer = io.BytesIO()
    torch.save({"settings": json.dumps(training.settings(), sort_keys=True), **vars(progress)}, buffer)
    atomic_write(path, buffer.getvalue())


def _progress_file(stem: Path) -> Path:
    return stem.with_name(stem.name + ".training.pt")


def _resume(path: Path, training: Training) -> _Progress | None:
    """What an interrupted run with the same settings left. Raises: InputError if it had others."""
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}); remove it to train from the beginning"
        ) from error
    if saved.pop("settings") != json.dumps(training.settings(), sort_keys=True):
        raise InputError(
            f"{path} is of a training with other settings; finish that one, remove the file, or use another --name"
        )
    return _Progress(**saved)


def _curve_csv(progress: _Progress) -> bytes:
    return pd.DataFrame(progress.curve).round(4).to_csv(index=False, lineterminator="\n").encode()
