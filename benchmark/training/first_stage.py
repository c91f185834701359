"""What comes before some trainings: images withheld, a model trained first, pseudo-labels for a pool."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split, holdout
from model_zoo.architectures.registry import MLP
from model_zoo.defenses.registry import DefenseSpec, defense_spec
from model_zoo.files.atomic import file_of, sha256_of
from model_zoo.training.loop import Training, train
from model_zoo.training.process_group import Team
from model_zoo.training.recipe import Recipe
from model_zoo.training.recipes import FIRST_STAGES, recipe
from model_zoo.training.source import load_source

OWN_POOL = 2**30
"""Where the indices of the user's own unlabelled images begin: no dataset reaches it, so draws are never shared."""


@dataclass(frozen=True)
class FirstStageRun:
    """What the training of a defense begins with.

    Args:
        images: to train on.
        pool: unlabelled ones, with pseudo-labels; None without a pool.
        model, sha256: the first stage's; None and "" for a defense that has none.
    """

    images: Split
    pool: Split | None = None
    model: nn.Module | None = None
    sha256: str = ""

    @property
    def digest(self) -> str:
        """Of all images, and of the pool's pseudo-labels."""
        return " ".join(split.digest for split in (self.images, self.pool) if split is not None)


def prepare_first_stage(
    spec: DefenseSpec,
    settings: Recipe,
    recipe_name: str,
    threat: ThreatModel,
    images: Split,
    validation: Split,
    stem: Path,
    *,
    team: Team,
    precision: torch.dtype,
    seed: int,
    quiet: bool,
) -> FirstStageRun:
    """Withhold images, train the first stage or read the user's, and label the pool by it.

    Args:
        recipe_name: of the first stage, too, where it has one of that name; else "fast".
        stem: of the model to be trained; a first stage trained here lies beside it.

    Raises: InputError for a source of another architecture, or a pool of other images.
    """
    if spec.first is None:
        return FirstStageRun(images)
    pool = _read_pool(Path(settings.pool), images) if settings.pool else None
    withheld = None
    if pool is None and (spec.uses_pool or (spec.takes_features and not settings.source)):
        images, withheld = holdout(images, round(settings.withheld * len(images)), seed=seed)

    path = Path(settings.source) if settings.source else file_of(first_stem(stem), ".safetensors")
    if not settings.source:
        if file_of(first_stem(stem), ".json").exists():
            raise InputError(
                f"{first_stem(stem)}: a trained model has the name that the first stage takes; use another --name"
            )
        first = defense_spec(spec.first.defense)
        own = _first_recipe(spec.name, first, images.dataset, recipe_name, settings)
        on = withheld if withheld is not None and spec.takes_features else images
        training = Training(first, dict(first.params), own, threat, seed, f"{on.digest} {validation.digest}")
        train(
            training,
            on,
            validation,
            first_stem(stem),
            team=team,
            precision=precision,
            quiet=quiet,
        )
    model = load_source(path, settings.architecture, images.classes, with_head=not spec.takes_features)
    model.to(team.device)
    if spec.uses_pool:
        unlabelled = withheld if pool is None else pool
        assert unlabelled is not None
        pool = replace(unlabelled, y=_predictions(model, unlabelled.x, team.device))
    return FirstStageRun(images, pool, model, sha256_of(path))


def first_stem(stem: Path) -> Path:
    """Where the first stage of a training lies."""
    return file_of(stem, "-first")


def _first_recipe(defense: str, first: DefenseSpec, dataset: str, name: str, settings: Recipe) -> Recipe:
    """The first stage's own settings, on the network and the validation images of the second."""
    try:
        own = FIRST_STAGES.get((defense, dataset, name)) or recipe(first.name, dataset, name)
    except InputError:
        own = recipe(first.name, dataset, "fast")
    return replace(
        own,
        architecture=settings.architecture.removesuffix(MLP),
        epochs=settings.source_epochs or own.epochs,
        validation=settings.validation,
        epsilon=settings.epsilon,
    )


def _predictions(model: nn.Module, x: Tensor, device: torch.device) -> Tensor:
    """(N,) the classes that a model predicts."""
    with torch.no_grad():
        return torch.cat([model(part.to(device)).argmax(1).cpu() for part in x.split(500)])


def _read_pool(path: Path, like: Split) -> Split:
    """Unlabelled images of the shape of `like`: *.png below a folder, or an array of uint8, or of floats in [0, 1].

    Raises: InputError for anything else.
    """
    shape = tuple(like.x.shape[1:])
    if path.is_dir():
        array = _read_folder(path, shape)
    else:
        try:
            array = np.array(np.lib.format.open_memmap(path, mode="r"))  # a shape larger than the file is refused
        except (OSError, ValueError, MemoryError, OverflowError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"--set pool: expected a folder of PNG images or a .npy file, got {path}: {reason}"
            ) from None
        if array.dtype.kind not in "fiu":
            raise InputError(f"--set pool: expected an array of numbers, got {array.dtype}; {path}")
    x = torch.from_numpy(array).float() / (255 if array.dtype == np.uint8 else 1)
    if x.shape[1:] != shape or not len(x):
        raise InputError(f"--set pool: expected images of shape {('N', *shape)}, got {tuple(x.shape)}; {path}")
    if not ((x >= 0) & (x <= 1)).all():
        raise InputError(f"--set pool: expected pixels in [0, 1], or of type uint8, got others; {path}")
    return replace(like, x=x, y=torch.zeros(len(x), dtype=torch.int64), index=OWN_POOL + torch.arange(len(x)))


def _read_folder(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    channels, height, width = shape
    images = []
    for file in sorted(path.rglob("*.png")):
        try:
            with Image.open(file) as image:
                if image.size != (width, height):  # before it is unpacked: a small file may hold a huge image
                    raise ValueError(f"expected {width}x{height} pixels, got {image.size[0]}x{image.size[1]}")
                images.append(np.asarray(image.convert("L" if channels == 1 else "RGB")))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"--set pool: {file} cannot be used: {error}; remove it") from None
    if not images:
        raise InputError(f"--set pool: expected PNG images of one shape below {path}, got 0")
    return np.stack([image.reshape(*image.shape[:2], channels).transpose(2, 0, 1) for image in images])
