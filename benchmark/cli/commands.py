"""The commands that show, compare and look after what there is, and the options that each takes."""

import functools
from pathlib import Path
from typing import Any

import click

from benchmark.cli.headings import HeadedCommand, HeadedGroup, option
from benchmark.cli.options import (
    ATTACKING,
    CHECKPOINTS,
    DATA,
    DATASET,
    FILE,
    FOLDER,
    OWN_MODEL,
    PLACES,
    QUIET,
    RESULTS,
    SEED,
    THREAT,
    WHAT,
    Shared,
    takes,
    workers,
)

# What loads torch is imported inside the commands, so that help and mistakes answer at once.


@click.group("list", cls=HeadedGroup)
def list_group() -> None:
    """Show what there is to choose from."""


@list_group.command("models")
@takes(CHECKPOINTS)
def list_models_command(*, shared: Shared) -> None:
    """Show the models of all suites, and whether their checkpoints are here."""
    _print_list("models", shared.checkpoint_dir)


def _print_list(what: str, checkpoint_dir: Path = Path()) -> None:
    from benchmark.cli.list import list_table

    print(list_table(what, checkpoint_dir))


for what, text in {
    "attacks": "Show the attacks, their settings and papers.",
    "defenses": "Show the defenses that can be trained, their parameters and papers.",
    "datasets": "Show the datasets.",
    "suites": "Show the suites: dataset, threat model, attacks and how many images each attacks.",
}.items():
    list_group.command(what, help=text)(functools.partial(_print_list, what))


@list_group.command("studies")
@takes(RESULTS)
def list_studies_command(*, shared: Shared) -> None:
    """Show the studies: paper, minutes, settings, and whether their results are here."""
    from benchmark.cli.study import studies_table

    print(studies_table(shared))


@click.command("study", cls=HeadedCommand)
@click.argument("name", metavar="NAME|all")
@option(
    "--set",
    WHAT,
    "This setting of the study has another value; `list studies` names all. May be repeated.",
    dest="overrides",
    multiple=True,
    metavar="KEY=VALUE",
)
@takes(SEED, DATA[:2], RESULTS, QUIET)
def study_command(*, shared: Shared, **options: Any) -> None:
    """Compute an experiment of the papers, and write what is published beside what was measured; all: those missing."""
    from benchmark.cli.study import study

    study(shared, **options)


@click.command("table", cls=HeadedCommand)
@option("--papers", WHAT, "The published figures of suites that were never run are written, too.", is_flag=True)
@takes(RESULTS)
def table_command(*, shared: Shared, papers: bool) -> None:
    """Rebuild every table from the verdict store; needs no model."""
    from benchmark.report.publish import rebuild_tables, write_published

    if papers:
        write_published(shared.results_dir)
    rebuild_tables(shared.results_dir)


@click.command("push", cls=HeadedCommand)
@option("--models", WHAT, "This trained model is written.", required=True, metavar="NAME")
@option("--suite", WHAT, "Its numbers are those of this suite.", default="digits", metavar="NAME")
@option(
    "--folder",
    PLACES,
    "It is written to this folder, in the format of the Hugging Face hub.",
    type=FOLDER,
    required=True,
)
@takes(RESULTS, CHECKPOINTS)
def push_command(*, shared: Shared, **options: Any) -> None:
    """Write a trained model, with the card of what it withstands, for `hf upload`."""
    from benchmark.cli.push import push

    push(shared, **options)


@click.command("speed", cls=HeadedCommand)
@option("--models", WHAT, "This model of the suite is attacked.  [default: its first robust one]", metavar="NAME")
@option(
    "--suite",
    WHAT,
    "The model, the images and the threat model are of this suite.  [default: digits, or that of --dataset]",
    metavar="NAME",
)
@option("--contests", WHAT, "All contests are run, or these: pgd-20, autoattack, ...", default="all")
@option("--rounds", WHAT, "The number of rounds; each program runs once a round.", type=click.IntRange(1), default=3)
@option("--examples", WHAT, "The number of test images.", type=click.IntRange(1), default=100)
@option("--name", PLACES, "The files in --results-dir have this name.", default="speed")
@takes(THREAT, SEED, OWN_MODEL, DATASET, DATA, CHECKPOINTS, RESULTS, ATTACKING, QUIET)
def speed_command(*, shared: Shared, **options: Any) -> None:
    """Compare this harness with its peers, in turns, on the same model and images."""
    from benchmark.cli.speed import speed

    speed(shared, **options)


@click.command("compare", cls=HeadedCommand)
@option("--suite", WHAT, "The verdicts are those of these suites.", dest="suites", default="digits", metavar="NAME,...")
@option("--attacks", WHAT, "These attacks are the first of each pair.", required=True, metavar="NAME,...")
@option(
    "--against",
    WHAT,
    "These attacks are the second of each pair, or one is that of all.  [default: the same, in --against-dir]",
    metavar="NAME,...",
)
@option("--against-dir", WHAT, "The verdicts of the second attacks are those of this results folder.", type=FILE)
@option("--name", PLACES, "The files in --results-dir have this name.", default="comparison")
@takes(RESULTS)
def compare_command(*, shared: Shared, **options: Any) -> None:
    """Show, image by image, where two attacks (or two runs of one) disagree; needs no model."""
    from benchmark.cli.compare import compare_stored

    compare_stored(shared, **options)


@click.command("union", cls=HeadedCommand)
@option(
    "--suite",
    WHAT,
    "The verdicts are those of these suites of one dataset.",
    dest="suites",
    required=True,
    metavar="NAME,...",
)
@option("--name", PLACES, "The files in --results-dir have this name.", default="union")
@takes(RESULTS)
def union_command(*, shared: Shared, **options: Any) -> None:
    """Show what models withstand under several threat models at once; needs no model and runs no attack."""
    from benchmark.cli.union import union_of

    union_of(shared, **options)


@click.group("store", cls=HeadedGroup)
def store_group() -> None:
    """Look after the verdict store of --results-dir."""


@store_group.command("verify")
@takes(RESULTS, workers("The number of processes that read chunks; auto is one a core."), QUIET)
def verify_command(*, shared: Shared) -> None:
    """Check every chunk: readable, of the right case, complete, consistent. Exit code 1 where one is not."""
    from benchmark.cli.store import verify_store

    verify_store(shared)


@store_group.command("rejudge")
@takes(RESULTS, CHECKPOINTS)
def rejudge_command(*, shared: Shared) -> None:
    """Judge the images that --keep-images kept, in one forward pass. Exit code 1 where a verdict is another."""
    from benchmark.cli.rejudge import rejudge_store

    rejudge_store(shared)


@store_group.command("missing")
@takes(RESULTS)
def missing_command(*, shared: Shared) -> None:
    """List the cases of all tables that lack chunks, by the files' names alone."""
    from benchmark.cli.store import list_missing

    list_missing(shared)


@store_group.command("gc")
@option("--dry-run", "Options", "What would be removed is named, and nothing is removed.", is_flag=True)
@option("--unshown", "Options", "The verdicts that no table shows any more are removed, too.", is_flag=True)
@takes(RESULTS, QUIET)
def gc_command(*, shared: Shared, **options: Any) -> None:
    """Remove temporary files, damaged chunks and second copies; while a sweep uses the folder, nothing."""
    from benchmark.cli.store import collect_garbage

    collect_garbage(shared, **options)


COMMANDS = (
    list_group,
    table_command,
    push_command,
    speed_command,
    compare_command,
    study_command,
    union_command,
    store_group,
)
