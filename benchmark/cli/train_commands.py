"""The commands that train, and the options that each takes: train, substitute."""

from typing import Any

import click

from benchmark.cli.headings import HeadedCommand, option
from benchmark.cli.options import (
    CHECKPOINTS,
    DATA,
    DEVICE,
    QUIET,
    SEED,
    WHAT,
    Shared,
    precision,
    takes,
    workers,
)

# What loads torch is imported inside the commands, so that help and mistakes answer at once.


@click.command("train", cls=HeadedCommand)
@option("--defense", WHAT, "The model is trained by this defense; `list defenses` names all.", required=True)
@option(
    "--suite",
    WHAT,
    "The model is trained for the dataset and threat model of this suite.",
    default="digits",
    metavar="NAME",
)
@option("--recipe", WHAT, "The settings are those of this recipe: fast, paper, cpu, or a table's own.", default="fast")
@option(
    "--set",
    WHAT,
    "This setting replaces that of the recipe: beta=6, epochs=5, lr=0.05, batch_size=64, ...",
    dest="overrides",
    multiple=True,
    metavar="KEY=VALUE",
)
@option("--name", WHAT, "The model has this name.  [default: the defense and its parameters]")
@takes(
    *(SEED, DATA, CHECKPOINTS, DEVICE),
    precision("The training computes in this precision; auto takes the device's fastest, float32 for tiny images."),
    workers("The number of processes that train one model, each on its GPU or on the CPU; auto is one."),
    QUIET,
)
def train_command(*, shared: Shared, **options: Any) -> None:
    """Train a defense, to a checkpoint that --models knows. A killed training continues from its last epoch."""
    from benchmark.cli.train import train

    train(shared, **options)
