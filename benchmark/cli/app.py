"""The command line: words to suite, models, attacks and hardware, and one line for every mistake."""

import functools
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from attacks.errors import InputError
from benchmark.cli.gate_options import COMPARING, UPDATING
from benchmark.cli.headings import HeadedGroup, option
from benchmark.cli.options import (
    ATTACK_WORKERS,
    ATTACKING,
    CHECKPOINTS,
    DATA,
    DATASET,
    DEVICE,
    DRAWS,
    FILE,
    FOLDER,
    OWN_DATA,
    OWN_MODEL,
    OWN_NAME,
    PLACES,
    QUIET,
    RAY,
    RESULTS,
    SEED,
    THREAT,
    WHAT,
    Shared,
    precision,
    takes,
    workers,
)
from benchmark.cli.values import Examples, Number

# What loads torch is imported inside the commands, so that help and mistakes answer at once.


@click.group(cls=HeadedGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@option("--models", WHAT, "These models are attacked.  [default: all, or none beside --model]", metavar="all|NAME,...")
@option("--suite", WHAT, "This suite is run.  [default: digits, or that of --dataset]", metavar="NAME")
@option("--attacks", WHAT, "All attacks of the suite are run, or these.", default="all", metavar="all|NAME,...")
@option(
    "--transfer",
    WHAT,
    "These attacks are crafted on other models, too.  [default: the suite's]",
    metavar="none|NAME,...",
)
@option(
    "--sources",
    WHAT,
    "Transfer attacks are crafted on these models of the suite, whether they are attacked themselves or not; A+B is "
    "the mean of their logits.  "
    "[default: the suite's few where all models run, else all that run]",
    metavar="NAME[+NAME...],...",
)
@option(
    "--examples",
    WHAT,
    "The number of test images, a class-balanced subset; ATTACK=N (or transfer=N) is for one attack alone.",
    type=Examples(),
    metavar="all|N,[ATTACK=N,...]",
)
@option(
    "--adaptive",
    WHAT,
    "Attacks are crafted on what this function makes of a model, too: a module of which an attack can take gradients. "
    " [default: what is known of the model's mask]",
    metavar="PATH.py:FUNCTION|none",
)
@option(
    "--loss",
    WHAT,
    "Gradient attacks climb this loss in place of their own: cross-entropy, cross-entropy-x10, margin or dlr; "
    "difference or dlr-targeted where they have targets.",
    metavar="NAME",
)
@option("--keep-images", WHAT, "Adversarial images are kept, for `store rejudge`.", is_flag=True)
@takes(
    *(DRAWS, THREAT, SEED, OWN_MODEL, OWN_NAME, OWN_DATA, DATASET, DATA, CHECKPOINTS, RESULTS),
    *(ATTACKING, ATTACK_WORKERS, RAY, QUIET),
)
@click.pass_context
def cli(ctx: click.Context, /, *, shared: Shared, **options: Any) -> None:
    """Robust accuracy that you can defend. Without a command: run the benchmark and show its leaderboard."""
    if _is_alone(ctx):
        from benchmark.cli.run import run

        run(shared, **options)


def _is_alone(ctx: click.Context) -> bool:
    """Whether no command follows that of the context. Raises: InputError for options that stand before one."""
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if ctx.invoked_subcommand is not None and given:
        raise InputError(
            f"--{given[0].replace('_', '-')} stands before {ctx.invoked_subcommand!r}; options go behind it"
        )
    return ctx.invoked_subcommand is None


@cli.group("list")
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


@cli.command("train")
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


@cli.command("substitute")
@option("--models", WHAT, "This model of the suite is asked for labels.", required=True, metavar="NAME")
@option("--suite", WHAT, "The model and the images are of this suite.", default="digits", metavar="NAME")
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
@takes(SEED, DATA, CHECKPOINTS, DEVICE, QUIET)
def substitute_command(*, shared: Shared, **options: Any) -> None:
    """Train a network on the labels that a model gives, to craft transfer attacks on (--sources)."""
    from benchmark.cli.substitute import substitute

    substitute(shared, **options)


@cli.command("table")
@option("--papers", WHAT, "The published figures of suites that were never run are written, too.", is_flag=True)
@takes(RESULTS)
def table_command(*, shared: Shared, papers: bool) -> None:
    """Rebuild every table from the verdict store; needs no model."""
    from benchmark.report.publish import rebuild_tables, write_published

    if papers:
        write_published(shared.results_dir)
    rebuild_tables(shared.results_dir)


@cli.command("push")
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


@cli.command("speed")
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


@cli.command("diagnose")
@option(
    "--models",
    WHAT,
    "The attack is diagnosed on these models.  [default: all, or none beside --model]",
    metavar="all|NAME,...",
)
@option("--suite", WHAT, "This suite is used.  [default: digits, or that of --dataset]", metavar="NAME")
@option("--attack", WHAT, "This attack by gradients is diagnosed.", default="pgd-40", metavar="NAME")
@option(
    "--attack-epsilon",
    WHAT,
    "The attack runs at this radius; what it is compared with keeps --epsilon.  [default: the same]",
    type=Number(),
)
@option("--examples", WHAT, "The number of test images.", type=click.IntRange(1), default=200)
@takes(
    THREAT, SEED, OWN_MODEL, OWN_NAME, OWN_DATA, DATASET, DATA, CHECKPOINTS, RESULTS, ATTACKING, ATTACK_WORKERS, QUIET
)
def diagnose_command(*, shared: Shared, **options: Any) -> None:
    """Ask whether an attack is shown to work on a model: a checklist with tests, and hidden points to find."""
    from benchmark.cli.diagnose import diagnose

    diagnose(shared, **options)


@cli.command("compare")
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


@cli.group("store")
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


class GateGroup(HeadedGroup):
    """The gate, where --update is another word for its command `update`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--update" in args:
            args = ["update", *(word for word in args if word != "--update")]
        return super().parse_args(ctx, args)


GATE = (OWN_MODEL, OWN_NAME, OWN_DATA, DATA, CHECKPOINTS, RESULTS, ATTACKING, ATTACK_WORKERS, QUIET)


@cli.group("gate", cls=GateGroup, invoke_without_command=True)
@takes(COMPARING, *GATE)
@click.pass_context
def gate_group(ctx: click.Context, /, *, shared: Shared, baseline: Path | None, **options: Any) -> None:
    """Compare robust accuracy with a baseline: exit code 1 where it fell, or the attack became weaker."""
    if not _is_alone(ctx):
        return
    if baseline is None:
        raise click.MissingParameter(ctx=ctx, param=next(p for p in ctx.command.params if p.name == "baseline"))
    from benchmark.cli.gate import gate

    if not gate(shared, baseline, **options):
        sys.exit(1)


@gate_group.command("update")
@takes(UPDATING, DATASET, *GATE)
def gate_update_command(*, shared: Shared, baseline: Path, recorded_seed: int | None, **options: Any) -> None:
    """Attack all images, and write the baseline, or the part of it that is of the models named."""
    from benchmark.cli.gate_update import update_baseline

    update_baseline(shared, baseline, **options, seed=recorded_seed)


def main() -> None:
    """Run the command line; exit 2 with one line for a mistake of the user's."""
    try:
        cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave("interrupted; whatever was stored is kept: run the same command again to go on", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        _leave(f"{_group(error.ctx)}, got nothing", 2)
    except click.NoSuchOption as error:
        _leave(f"{_no_such_option(error)} See: {' '.join([*_command(error.ctx), '--help'])}", 2)
    except click.ClickException as error:
        _leave(error.format_message(), 2)
    except InputError as error:
        _leave(str(error), 2)
    except OSError as error:
        _leave(f"cannot read or write: {error}; what was computed before is kept", 2)


def _group(ctx: click.Context | None) -> str:
    """What a group of commands expects."""
    assert ctx is not None
    assert isinstance(ctx.command, click.Group)
    return f"{ctx.info_name}: expected one of {', '.join(ctx.command.list_commands(ctx))} behind it"


def _no_such_option(error: click.NoSuchOption) -> str:
    """click's message; of an option of one of the gate's two commands that was given to the other, whose it is."""
    gates = {"gate": gate_group, "gate update": gate_update_command}
    given = " ".join(_command(error.ctx)[1:])
    owners = [
        name
        for name, command in gates.items()
        if given in gates and any(error.option_name in param.opts for param in command.params)
    ]
    if not owners:
        return error.format_message()
    return f"No such option {error.option_name!r}. It is of {owners[0]!r}; leave it out here."


def _command(ctx: click.Context | None) -> list[str]:
    """The words that name a command."""
    return ["run_benchmark.py"] if ctx is None or ctx.parent is None else [*_command(ctx.parent), str(ctx.info_name)]


def _leave(message: str, code: int) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
