"""The one training loop. Killed at any moment, it goes on from the last whole epoch, and ends with the same weights."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.judge import withstands
from attacks.threat_model import ThreatModel
from model_zoo.architectures.registry import build, find
from model_zoo.bounds.certified import BOUNDS
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DefenseSpec
from model_zoo.files.atomic import file_of, sha256_of
from model_zoo.training.augmentation import augment
from model_zoo.training.batches import Images, LabelledImages, all_images, batches
from model_zoo.training.passes import counted
from model_zoo.training.process_group import Team
from model_zoo.training.recipe import Recipe
from model_zoo.training.source import take_features
from model_zoo.training.state import Progress, progress_file, resume, save, weights_of
from model_zoo.weights.checkpoint import LAST, save_state_dict

VALIDATION_STREAM = 2**20
"""Validation attacks draw as if at this restart, which no epoch reaches."""


class DivergenceError(Exception):
    """Training has left the numbers that can be computed with; the message says when."""


@dataclass(frozen=True)
class Training:
    """All that determines the weights.

    Args:
        defense: with its loss.
        params: of the loss.
        recipe: how long, how fast, on which network.
        threat: trained against.
        seed: of the initial weights, the order of the images, and all draws.
        images: digest of the training and validation images, and of the unlabelled ones with their pseudo-labels.
        source: sha256 of the first stage's checkpoint, if the defense has one.
    """

    defense: DefenseSpec
    params: Mapping[str, float]
    recipe: Recipe
    threat: ThreatModel
    seed: int
    images: str
    source: str = ""

    def settings(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "defense": self.defense.name,
            "params": dict(self.params),
            "recipe": self.recipe.settings(),
            "threat": asdict(self.threat),
            "seed": self.seed,
            "images": self.images,
            **({"source": self.source} if self.source else {}),
        }


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Args:
        sha256: of the best checkpoint.
        seconds: wall-clock time of all epochs. backwards_per_image: backward passes, over all epochs.
    """

    sha256: str
    seconds: float
    backwards_per_image: float


def train(
    training: Training,
    images: LabelledImages,
    validation: LabelledImages,
    stem: Path,
    *,
    team: Team,
    precision: torch.dtype = torch.float32,
    pool: LabelledImages | None = None,
    source: nn.Module | None = None,
    quiet: bool = False,
) -> Trained:
    """Train, or go on training, and write the best and the last checkpoint.

    Args:
        images, validation: disjoint; neither is test data.
        stem: path without suffix: STEM.safetensors (best by validation), STEM.last.safetensors, STEM.csv (the learning
            curve; backward passes are those of an epoch over its labelled images), STEM.training.pt (what resuming
            needs, until `progress.forget`).
        team: the processes that train together; each calls this, and the leader writes.
        precision: of forward and backward passes; weights stay float32.
        pool: images with pseudo-labels, which fill half of every batch.
        source: the first stage's model.

    Returns: the best checkpoint, and what it took.
    Raises: InputError for an architecture of other images; and when the loss is not finite or the model ends at chance:
        the last good state is kept.
    """
    recipe, device = training.recipe, team.device
    expected, got = find(recipe.architecture).input_shape, tuple(images.x.shape[1:])
    if got != expected:
        raise InputError(
            f"architecture {recipe.architecture} expects images of shape {expected}, got {got}; use another"
        )
    with _seeded(training.seed, device):
        model = build(recipe.architecture, images.classes)
    if source is not None and training.defense.takes_features:
        take_features(model, source)
    layout = torch.channels_last if recipe.memory_format == "channels-last" else torch.preserve_format
    model = model.to(device).to(memory_format=layout)
    source = None if source is None else source.to(device).to(memory_format=layout)
    optimizer = optimizer_of(recipe, model)
    start = Progress(weights_of(model), optimizer.state_dict(), weights_of(model))
    run = {
        **training.settings(),
        "precision": str(precision),
        "workers": team.size,
        "torch": torch.__version__,
    }
    progress = resume(stem, run) or start
    model.load_state_dict(progress.model)
    optimizer.load_state_dict(progress.optimizer)

    data = all_images(images, pool, device)
    first = len(progress.curve) + 1
    steps = math.ceil(data.labelled / data.labelled_in_batch(recipe.batch_size)) * recipe.replays
    with tqdm(
        total=recipe.epochs * steps, initial=(first - 1) * steps, unit="batch", disable=quiet or not team.is_leader
    ) as bar:
        for epoch in range(first, recipe.epochs + 1):
            started = time.perf_counter()
            try:
                with _seeded(hash_seed(training.seed, epoch), device), counted(model, source) as passes:
                    loss = train_epoch(training, model, optimizer, data, source, epoch, precision, bar, team)
                if not all(weight.isfinite().all() for weight in model.parameters()):
                    raise DivergenceError(f"epoch {epoch} ends with weights that are not finite")
            except DivergenceError as stopped:
                raise InputError(f"{stopped}; {_kept(stem, training, progress, team)}") from None
            team.average_buffers(model)
            backwards = team.add_up(torch.tensor(float(passes.backwards), device=device)).item()
            clean, robust = _validate(training, model, validation, team, precision)
            score = (robust, clean) if training.defense.is_robust else (clean, robust)
            if score > progress.best_score:
                progress.best, progress.best_score = weights_of(model), score
            progress.seconds += time.perf_counter() - started
            progress.model, progress.optimizer = weights_of(model), optimizer.state_dict()
            progress.curve.append(
                {
                    "epoch": epoch,
                    "lr": recipe.lr_at(epoch),
                    "loss": loss,
                    "validation_clean": clean,
                    "validation_robust": robust,
                    "backwards_per_image": backwards / data.labelled,
                }
            )
            bar.set_postfix(loss=f"{loss:.3f}", clean=f"{clean:.1f}", robust=f"{robust:.1f}")
            if team.is_leader:
                save(stem, run, progress)

    chance = 100 * int(validation.y.bincount().max()) / len(validation.y)
    if progress.curve[-1]["validation_clean"] <= chance:
        raise InputError(
            f"the model ends at chance: {progress.curve[-1]['validation_clean']:.1f} clean validation accuracy; "
            f"no checkpoint was written; remove {progress_file(stem)} and train with a lower lr or more epochs (--set)"
        )
    best = file_of(stem, ".safetensors")
    if team.is_leader:
        save_state_dict(progress.model, file_of(stem, LAST), _metadata(training))
        save_state_dict(progress.best, best, _metadata(training))
    team.wait()
    passes_an_image = sum(row["backwards_per_image"] for row in progress.curve)
    return Trained(sha256_of(best), progress.seconds, passes_an_image)


def _kept(stem: Path, training: Training, progress: Progress, team: Team) -> str:
    """Keep the weights of the last whole epoch, if there is one; say where, and what to do."""
    again = f"remove {progress_file(stem)} and train with a lower lr (--set lr=...)"
    if not progress.curve:
        return "train with a lower lr (--set lr=...)"
    if team.is_leader:
        save_state_dict(progress.model, file_of(stem, LAST), _metadata(training))
    return f"the weights after epoch {len(progress.curve)} are in {file_of(stem, LAST)}; {again}"


def _metadata(training: Training) -> dict[str, str]:
    return {"settings": json.dumps(training.settings(), sort_keys=True)}


def train_epoch(
    training: Training,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Images,
    source: nn.Module | None,
    epoch: int,
    precision: torch.dtype,
    bar: "tqdm[Any]",
    team: Team,
) -> float:
    """One pass over the images in an order of its own.

    Args:
        model: with its parameters on the images' device; trained in place.
        source: the first stage's model, if the defense has one.
        epoch: counted from 1.
        bar: moves on by one for every optimizer step.
        team: of whose batches this process takes its part.

    Returns: the mean loss, over the parts of all.
    Raises: DivergenceError for a loss that is not finite.
    """
    recipe = training.recipe
    params = recipe.params_at(training.params, epoch)
    carried: dict[str, Tensor] = {}
    losses, seen = 0.0, 0
    model.train()
    all_places = list(batches(data, recipe.batch_size))
    team.reseed()
    for number, places in enumerate(all_places, start=1):
        rows, weight = team.part(places).to(data.x.device), team.weight(places)
        draws = Draws.start(training.seed, data.index[rows], torch.full_like(data.index[rows], epoch))
        x = augment(data.x[rows], draws) if recipe.augmentation == "crop-flip" else data.x[rows]
        passed = (number - 1) / len(all_places)
        ctx = _context(training, draws, precision, epoch, source, carried)
        epsilon = training.threat.epsilon * recipe.epsilon_share_at(epoch, passed)
        ctx = replace(ctx, threat=replace(training.threat, epsilon=epsilon))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch, passed)
        for _ in range(recipe.replays):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
                loss = training.defense.batch_loss(model, x, data.y[rows], ctx, **params)
            total = team.add_up(loss.detach() * weight)
            if not total.isfinite():
                raise DivergenceError(f"the loss is {total.item()} in epoch {epoch}, batch {number}")
            optimizer.zero_grad()
            (loss if team.size == 1 else loss * weight).backward()
            team.add_up_gradients(model)
            optimizer.step()
            losses += total.item() * len(places)
            seen += len(places)
            bar.update()
    return losses / seen


def _validate(
    training: Training, model: nn.Module, images: LabelledImages, team: Team, precision: torch.dtype
) -> tuple[float, float]:
    """Clean and robust accuracy in percent, the latter as the defense is meant.

    That is certified where it has a bound, under noise where it has some, else under the inner attack. Noise and attack
    have the same draws in every epoch.
    """
    bound, noise = training.defense.bound, training.defense.noise
    clean = robust = 0
    model.eval()
    own = torch.arange(len(images.y))[team.rank :: team.size]
    for rows in own.split(500):
        x, y, index = (t[rows].to(team.device) for t in (images.x, images.y, images.index))
        with torch.no_grad():
            right = model(x).argmax(1) == y
        clean += int(right.sum())
        if bound is not None:
            robust += int(BOUNDS[bound](model, x, y, training.threat.epsilon).sum())
            continue
        draws = Draws.start(training.seed, index, torch.full_like(index, VALIDATION_STREAM))
        if noise is not None:
            harder = x + training.params[noise] * draws.normal(x.shape[1:], stream=3)
        else:
            harder = _context(training, draws, precision).craft(model, x, y, loss="cross-entropy", start="uniform")
        with torch.no_grad():
            logits = model(harder)
            rejected = logits.shape[1] - 1 if training.defense.rejects else None
            robust += int((right & withstands(logits.argmax(1), y, rejected)).sum())
    all_clean, all_robust = team.add_up(torch.tensor([clean, robust], device=team.device)).tolist()
    return 100 * all_clean / len(images.y), 100 * all_robust / len(images.y)


def _context(
    training: Training,
    draws: Draws,
    precision: torch.dtype,
    epoch: int = 1,
    source: nn.Module | None = None,
    carried: dict[str, Tensor] | None = None,
) -> TrainingContext:
    recipe = training.recipe
    return TrainingContext(
        training.threat,
        draws,
        recipe.inner_steps,
        recipe.inner_rel_step_size,
        precision,
        epoch=epoch,
        epochs=recipe.epochs,
        source=source,
        carried={} if carried is None else carried,
    )


def hash_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch, unlike that of any other epoch or run."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7], "little")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generator (initial weights, order, dropout) set by a seed, and left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def optimizer_of(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer of a model's parameters. Raises: InputError for an unknown one."""
    kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
        ),
        "sgd-nesterov": lambda: torch.optim.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=True
        ),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay),
    }
    if recipe.optimizer not in kinds:
        raise InputError(f"optimizer must be one of {', '.join(kinds)}, got {recipe.optimizer!r}")
    return kinds[recipe.optimizer]()
