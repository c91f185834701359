"""Options that several commands share, and the types of their values."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from attacks.number import number


@dataclass(frozen=True)
class Shared:
    """The options that every command takes."""

    data_dir: Path
    results_dir: Path
    checkpoint_dir: Path
    mirror_dir: Path | None
    classes: Path | None
    device: str
    precision: str
    batch_size: str
    workers: str
    executor: str
    gpus_per_worker: float | None
    seed: int
    quiet: bool


class Number(click.ParamType[float]):
    """A number, or a fraction such as 8/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return number(str(value))
        except ValueError:
            self.fail(f"expected a number or a fraction such as 8/255, got {value!r}", param, ctx)


class FiniteRange(click.FloatRange):
    """A number within bounds; NaN is within none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        converted: float = super().convert(value, param, ctx)
        if not math.isfinite(converted):
            self.fail(f"expected a finite number, got {value!r}", param, ctx)
        return converted


class Examples(click.ParamType[dict[str, int | None]]):
    """How many images: all or N for every attack (under ""), and ATTACK=N for some."""

    name = "examples"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int | None]:
        wanted: dict[str, int | None] = {}
        for word in str(value).split(","):
            name, _, count = word.strip().rpartition("=")
            if count != "all" and not re.fullmatch("[1-9][0-9]{0,8}", count):
                self.fail(f"expected all or a positive whole number, got {count!r}", param, ctx)
            wanted[name] = None if count == "all" else int(count)
        return wanted


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command, which receives them as `shared`."""
    folder = click.Path(path_type=Path, file_okay=False)
    options = [
        click.option(
            "--data-dir", type=folder, default="data", show_default=True, help="datasets are found, or downloaded, here"
        ),
        click.option(
            "--results-dir", type=folder, default="results", show_default=True, help="verdict store and tables"
        ),
        click.option(
            "--checkpoint-dir",
            type=folder,
            default="checkpoints",
            show_default=True,
            help="trained and authors' checkpoints",
        ),
        click.option("--mirror-dir", type=folder, help="files to take in place of downloads, by their official names"),
        click.option(
            "--classes",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="names of class folders, one a line, in the order of the logits  [default: the official names]",
        ),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            show_default=True,
            help="of the search (auto: a paper's suite has float32); judging is always float32",
        ),
        click.option("--batch-size", default="auto", show_default=True, metavar="auto|N"),
        click.option(
            "--workers",
            default="auto",
            show_default=True,
            metavar="auto|N",
            help="processes (auto: one on each core for tiny images, else one on all); for train, one on each GPU",
        ),
        click.option(
            "--executor",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="where the workers are: on this machine, or in a Ray cluster (RAY_ADDRESS, else one is started here)",
        ),
        click.option("--gpus-per-worker", type=Number(), help="for Ray; may be a fraction  [default: 1, or 0]"),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True),
        click.option("--quiet", is_flag=True, help="no progress bars"),
    ]

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        shared = Shared(**{name: kwargs.pop(name) for name in Shared.__dataclass_fields__})
        command(*args, shared=shared, **kwargs)

    for option in reversed(options):
        option(run)
    return run
