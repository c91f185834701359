"""The commands that train, and the options that each takes: train, substitute, fit."""

from typing import Any

import click

from benchmark.cli.headings import HeadedCommand, option
from benchmark.cli.options import (
    CHECKPOINTS,
    DATA,
    DATASET,
    DEVICE,
    OWN_MODEL,
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


@click.command("substitute", cls=HeadedCommand)
@option("--models", WHAT, "This model of the suite is asked for labels.", metavar="NAME")
@option(
    "--suite",
    WHAT,
    "The model and the images are of this suite.  [default: digits, or that of --dataset]",
    metavar="NAME",
)
@option("--architecture", WHAT, "The substitute is this network.  [default: that of recipe fast]", metavar="NAME")
@option(
    "--examples",
    WHAT,
    "The number of images to begin with, of those held out for validation.",
    type=click.IntRange(1),
    default=150,
)
@option(
    "--set",
    WHAT,
    "A setting is changed: rounds, epochs, lr, batch_size, step, period, reservoir, reservoir_after; may be repeated.",
    dest="overrides",
    multiple=True,
    metavar="KEY=VALUE",
)
@option("--name", WHAT, "The substitute has this name.  [default: substitute-of-NAME]")
@takes(SEED, OWN_MODEL, DATASET, DATA, CHECKPOINTS, DEVICE, QUIET)
def substitute_command(*, shared: Shared, **options: Any) -> None:
    """Train a network on the labels that a model gives, to craft transfer attacks on (--sources)."""
    from benchmark.cli.substitute import substitute

    substitute(shared, **options)


@click.command("fit", cls=HeadedCommand)
@option(
    "--technique",
    WHAT,
    "This technique is fitted: logistic-regression, linear-svm, decision-tree or nearest-neighbours.",
    required=True,
    metavar="NAME",
)
@option("--suite", WHAT, "The model is fitted to the training images of this suite.", default="digits", metavar="NAME")
@option("--examples", WHAT, "The number of images.  [default: all]", type=click.IntRange(1))
@option("--part", WHAT, "Of n disjoint parts of the images it is fitted to the i-th.", default="1/1", metavar="i/n")
@option("--name", WHAT, "The model has this name.  [default: the technique]")
@takes(SEED, DATA, CHECKPOINTS, QUIET)
def fit_command(*, shared: Shared, **options: Any) -> None:
    """Fit a classical technique by scikit-learn, to a checkpoint of arrays that --models knows."""
    from benchmark.cli.fit import fit

    fit(shared, **options)
