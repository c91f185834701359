"""Options that several commands share, in groups."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from benchmark.cli.headings import Decorator, option
from benchmark.cli.values import ImageSize, Norm, Number


@dataclass(frozen=True)
class Shared:
    """What the shared options say. A command that does not take an option has its default."""

    data_dir: Path = Path("data")
    results_dir: Path = Path("results/mine")
    checkpoint_dir: Path = Path("checkpoints")
    mirror_dir: Path | None = None
    classes: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: str = "auto"
    workers: str = "auto"
    executor: str = "local"
    gpus_per_worker: float | None = None
    seed: int = 0
    quiet: bool = False


@dataclass(frozen=True)
class OwnModel:
    """What the options say of a user's own model: its factory, weights, input, where its logits stand, its name."""

    model: str | None = None
    checkpoint: Path | None = None
    trust_code: bool = False
    rejects: bool = False
    output: str | None = None
    known_as: str | None = None
    mean: str | None = None
    std: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is one."""
        return self.model is not None or self.checkpoint is not None


@dataclass(frozen=True)
class OwnData:
    """What the options say of a user's own images: where they are, and how they are brought to one shape."""

    data: Path | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    skip_broken: int | None = None


def takes(*groups: tuple[Decorator, ...]) -> Decorator:
    """Add groups of options: a command gets those of `Shared` as `shared`, others that are a class by its name."""

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            together: dict[str, Any] = {}
            for name, group in (("shared", Shared), ("own", OwnModel), ("own_data", OwnData)):
                given = {field.name: kwargs.pop(field.name) for field in fields(group) if field.name in kwargs}
                if given or name == "shared":
                    together[name] = group(**given)
            command(*args, **together, **kwargs)

        for add in reversed([add for group in groups for add in group]):
            add(run)
        return run

    return decorate


FOLDER, FILE = click.Path(path_type=Path, file_okay=False), click.Path(path_type=Path)
WHAT, OWN, PLACES, MACHINE = "What is computed", "Your own model", "Folders and data", "Hardware"

RESULTS = (
    option(
        "--results-dir",
        PLACES,
        "The verdict store and the tables lie in this folder.",
        type=FOLDER,
        default="results/mine",
    ),
)
CHECKPOINTS = (
    option(
        "--checkpoint-dir",
        PLACES,
        "Trained checkpoints and those of papers' authors lie in this folder.",
        type=FOLDER,
        default="checkpoints",
    ),
)
DATA = (
    option(
        "--data-dir", PLACES, "Datasets are found in this folder, or downloaded to it.", type=FOLDER, default="data"
    ),
    option(
        "--mirror-dir",
        PLACES,
        "Files of this folder, by their official names, are taken in place of downloads.",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
    ),
    option(
        "--classes",
        PLACES,
        "This file names the class folders, one a line, in the order of the logits.  [default: the official names; of "
        "--data a published model's labels, else the folders by name]",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
    ),
)
DEVICE = (
    option(
        "--device",
        MACHINE,
        "Models run on this device; auto takes a GPU where there is one.",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
    ),
)


def precision(text: str) -> tuple[Decorator]:
    """The option --precision, with a text that says of what."""
    return (option("--precision", MACHINE, text, type=click.Choice(["auto", "fp32", "bf16"]), default="auto"),)


def workers(text: str) -> tuple[Decorator]:
    """The option --workers, with a text that says what they do."""
    return (option("--workers", MACHINE, text, default="auto", metavar="auto|N"),)


ATTACKING = (
    *DEVICE,
    *precision(
        "Attacks search in this precision; auto takes the device's fastest, but float32 for tiny images and papers' "
        "suites. Judging is always in float32."
    ),
    option(
        "--batch-size",
        MACHINE,
        "The number of images that are attacked at a time; auto is as many as fit into memory, 250 at most (1,000 on a "
        "GPU).",
        default="auto",
        metavar="auto|N",
    ),
)
ATTACK_WORKERS = workers(
    "The number of processes that attack side by side; auto is one a core for tiny images, else one."
)
CERTIFY_WORKERS = workers(
    "The number of processes that certify side by side; auto is one a core for tiny images, else one."
)
RAY = (
    option(
        "--executor",
        MACHINE,
        "Workers run on this machine, or in a Ray cluster (that of RAY_ADDRESS, else one is started here).",
        type=click.Choice(["local", "ray"]),
        default="local",
    ),
    option(
        "--gpus-per-worker",
        MACHINE,
        "The number of GPUs of each of Ray's workers, or the fraction of one.  [default: 1 on a GPU, else 0]",
        type=Number(),
    ),
)
SEEDS = click.IntRange(0, 2**63 - 1)
SEED = (option("--seed", WHAT, "Subsets of images and all random draws follow this seed.", type=SEEDS, default=0),)
QUIET = (option("--quiet", "Options", "No progress is shown.", is_flag=True),)
OWN_MODEL = (
    option(
        "--model",
        OWN,
        "This function, or module:FACTORY, returns the model; no registration is needed.",
        metavar="PATH.py:FACTORY",
    ),
    option(
        "--checkpoint",
        OWN,
        "This file holds the weights of --model, or is a model by itself (torch.jit, torch.export).",
        type=FILE,
    ),
    option(
        "--trust-code",
        OWN,
        "The file of --checkpoint is a model by itself, and its code may run.",
        is_flag=True,
    ),
    option(
        "--mean",
        OWN,
        "The model's images are normalised by this mean, one number a channel in [0, 1]; a name is for --std, too.",
        metavar="N,...|NAME",
    ),
    option(
        "--std",
        OWN,
        "The same: this standard deviation. The names are imagenet, cifar10, mnist, none.",
        metavar="N,...|NAME",
    ),
    option("--output", OWN, "This part of what the model returns is the logits.", metavar="NAME|INDEX"),
)
OWN_DATA = (
    option(
        "--data",
        OWN,
        "These images are attacked: a folder FOLDER/<class>/*.jpg, an .npz with x and y, or a dataset of the hub on "
        "disk. --epsilon is needed, too, unless a suite is named.",
        type=FILE,
        metavar="FOLDER|FILE.npz",
    ),
    option(
        "--image-size",
        OWN,
        "Images of --data are cut out of the middle in this size, resized before so that the shorter side is as long, "
        "or RESIZE pixels.",
        type=ImageSize(),
        metavar="SIZE[:RESIZE]",
    ),
    option(
        "--channels",
        OWN,
        "Images of --data are read as grey levels (1) or RGB (3).  [default: as the first is]",
        type=click.IntRange(1, 3),
        metavar="1|3",
    ),
    option(
        "--skip-broken",
        OWN,
        "So many images of --data that cannot be read are left out.  [default: 0]",
        type=click.IntRange(0),
        metavar="N",
    ),
)
REJECTS = (
    option(
        "--rejects",
        OWN,
        "The model may reject an image, by one logit more than there are classes, the last one: an error on a clean "
        "image, no success of an attack on it.",
        is_flag=True,
    ),
)
OWN_NAME = (
    option(
        "--name",
        OWN,
        "Your own model has this name in the tables.  [default: FACTORY, or the file's name]",
        dest="known_as",
        metavar="NAME",
    ),
)
DATASET = (option("--dataset", OWN, "The model is for this dataset; the suite of that name is used.", metavar="NAME"),)
NORMS = Norm()
THREAT = (
    option("--norm", WHAT, "This norm is used in place of the suite's.", type=NORMS),
    option(
        "--epsilon",
        WHAT,
        "This radius is used in place of the suite's; it is in pixel scale: 8/255, not 8. Of L0 and "
        "spatial-30deg it is in pixels.",
        type=Number(),
    ),
)
DRAWS = (
    option(
        "--judge-draws",
        WHAT,
        "The number of passes over which a randomised model's probabilities are averaged to judge an image.",
        type=click.IntRange(1, 10_000),
        default=20,
    ),
    option(
        "--eot",
        WHAT,
        "The number of passes that each query of our own attacks averages.  [default: 1; 20 for randomised models]",
        type=click.IntRange(1, 10_000),
    ),
)
