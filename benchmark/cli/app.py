"""The command line: words to suite, models, attacks and hardware, and one line for every mistake."""

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from attacks.errors import InputError
from benchmark.cli.options import Examples, FiniteRange, Number, Shared, shared_options

# What loads torch is imported inside the commands, so that help and mistakes answer at once.


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models", metavar="all|NAME,...", help="models of the suite  [default: all, or none beside --model]")
@click.option("--suite", metavar="NAME", help="what to run  [default: digits, or that of --dataset]")
@click.option("--attacks", default="all", show_default=True, metavar="all|NAME,...", help="the suite's, or any others")
@click.option("--transfer", metavar="none|NAME,...", help="crafted on the other models  [default: the suite's]")
@click.option("--sources", metavar="NAME,...", help="of transfer  [default: the suite's few with all models]")
@click.option(
    "--examples",
    type=Examples(),
    metavar="all|N,[ATTACK=N,...]",
    help="a seeded class-balanced subset of the test images, for all attacks or for one (or for transfer)",
)
@click.option("--model", metavar="PATH.py:FACTORY", help="your own model, or module:FACTORY; no registration needed")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="weights for --model, or a model by itself")
@click.option("--trust-code", is_flag=True, help="--checkpoint may be a program (torch.jit, torch.export) and run code")
@click.option("--output", metavar="NAME|INDEX", help="which part of what --model returns are the logits")
@click.option("--dataset", metavar="NAME", help="for --model: the suite of that name is used")
@click.option("--norm", type=click.Choice(["Linf", "L2"]), help="in place of the suite's")
@click.option("--epsilon", type=Number(), help="in place of the suite's, in pixel scale: 8/255, not 8")
@click.option(
    "--judge-draws",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="passes whose mean probabilities decide on a randomised model",
)
@click.option(
    "--eot",
    type=click.IntRange(1, 10_000),
    help="passes that each query of our own attacks averages  [default: 1; 20 for randomised models]",
)
@click.option("--keep-images", is_flag=True, help="adversarial images beside the verdicts, for `store rejudge`")
@shared_options
@click.pass_context
def cli(ctx: click.Context, /, *, shared: Shared, **options: Any) -> None:
    """Robust accuracy that you can defend. Without a command: run the benchmark and print its tables."""
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if ctx.invoked_subcommand is None:
        from benchmark.cli.run import run

        run(shared, **options)
    elif given:
        raise InputError(
            f"--{given[0].replace('_', '-')} stands before {ctx.invoked_subcommand!r}; options go behind it"
        )


@cli.command("list")
@click.argument("what", type=click.Choice(["models", "attacks", "defenses", "datasets", "suites"]))
@shared_options
def list_command(*, shared: Shared, what: str) -> None:
    """Show what there is to choose from."""
    from benchmark.cli.list import list_table

    print(list_table(what, shared.checkpoint_dir))


@cli.command("train")
@click.option("--defense", required=True, metavar="NAME", help="see: list defenses")
@click.option("--suite", default="digits", show_default=True, metavar="NAME", help="dataset and threat model")
@click.option("--recipe", default="fast", show_default=True, metavar="NAME", help="fast, paper, cpu, or a table's own")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="beta=6, epochs=5, lr=0.05, ...")
@click.option("--name", help="of the model  [default: the defense and its parameters]")
@shared_options
def train_command(*, shared: Shared, **options: Any) -> None:
    """Train a defense; ends with a checkpoint that --models knows. Killed, it goes on from the last whole epoch."""
    from benchmark.cli.train import train

    train(shared, **options)


@cli.command("table")
@click.option("--papers", is_flag=True, help="also papers.md of suites of which nothing was measured")
@shared_options
def table_command(*, shared: Shared, papers: bool) -> None:
    """Rebuild every table from the verdict store; needs no model."""
    from benchmark.report.publish import rebuild_tables, write_published

    if papers:
        write_published(shared.results_dir)
    rebuild_tables(shared.results_dir)


@cli.command("speed")
@click.option("--models", metavar="NAME", help="one model of the suite  [default: its first robust one]")
@click.option("--suite", metavar="NAME", help="model, images and threat model  [default: digits, or that of --dataset]")
@click.option("--contests", default="all", show_default=True, metavar="all|NAME,...", help="pgd-20, autoattack, ...")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="each program runs once a round")
@click.option("--examples", type=click.IntRange(1), default=100, show_default=True, help="how many test images")
@click.option("--model", metavar="PATH.py:FACTORY", help="your own model, or module:FACTORY")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="weights for --model, or a model by itself")
@click.option("--trust-code", is_flag=True, help="--checkpoint may be a program (torch.jit, torch.export) and run code")
@click.option("--output", metavar="NAME|INDEX", help="which part of what --model returns are the logits")
@click.option("--dataset", metavar="NAME", help="for --model: the suite of that name is used")
@click.option("--norm", type=click.Choice(["Linf", "L2"]), help="in place of the suite's")
@click.option("--epsilon", type=Number(), help="in place of the suite's, in pixel scale: 8/255, not 8")
@click.option("--name", default="speed", show_default=True, help="of the files in --results-dir")
@shared_options
def speed_command(*, shared: Shared, **options: Any) -> None:
    """This harness beside its peers on the same model and images, alternating; writes no verdicts."""
    from benchmark.cli.speed import speed

    speed(shared, **options)


@cli.command("compare")
@click.option("--suite", "suites", default="digits", show_default=True, metavar="NAME,...", help="whose verdicts")
@click.option("--attacks", required=True, metavar="NAME,...", help="the first of each pair")
@click.option(
    "--against", metavar="NAME,...", help="the second of each pair, or of all  [default: the same, in --against-dir]"
)
@click.option("--against-dir", type=click.Path(path_type=Path), help="another results folder for the second")
@click.option("--name", default="comparison", show_default=True, help="of the files in --results-dir")
@shared_options
def compare_command(*, shared: Shared, **options: Any) -> None:
    """Show, image by image, where two attacks (or two runs of one) disagree; needs no model."""
    from benchmark.cli.compare import compare_stored

    compare_stored(shared, **options)


@cli.group("store")
def store_group() -> None:
    """Look after the verdict store of --results-dir; needs no model."""


@store_group.command("verify")
@shared_options
def verify_command(*, shared: Shared) -> None:
    """Check every chunk: readable, of the right case, complete, consistent. Exit code 1 where one is not."""
    from benchmark.cli.store import verify_store

    verify_store(shared)


@store_group.command("rejudge")
@shared_options
def rejudge_command(*, shared: Shared) -> None:
    """Judge the images that --keep-images kept, in one forward pass. Exit code 1 where a verdict is another."""
    from benchmark.cli.rejudge import rejudge_store

    rejudge_store(shared)


@store_group.command("missing")
@shared_options
def missing_command(*, shared: Shared) -> None:
    """List the cases of all tables that lack chunks, by the files' names alone."""
    from benchmark.cli.store import list_missing

    list_missing(shared)


@store_group.command("gc")
@click.option("--dry-run", is_flag=True, help="say what would be removed, and remove nothing")
@click.option("--unshown", is_flag=True, help="remove the verdicts, too, that no table shows any more")
@shared_options
def gc_command(*, shared: Shared, **options: Any) -> None:
    """Remove what a kill or damage left behind. Refused while a sweep uses the folder."""
    from benchmark.cli.store import collect_garbage

    collect_garbage(shared, **options)


@cli.command("gate")
@click.option("--baseline", type=click.Path(path_type=Path), required=True, metavar="FILE.json", help="see --update")
@click.option("--update", is_flag=True, help="write the baseline in place of comparing with it")
@click.option("--models", metavar="all|NAME,...", help="NAME=FILE gives it other weights  [default: the baseline's]")
@click.option("--model", metavar="PATH.py:FACTORY", help="your own model, or module:FACTORY")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="weights for --model, or a model by itself")
@click.option("--trust-code", is_flag=True, help="--checkpoint may be a program (torch.jit, torch.export) and run code")
@click.option("--output", metavar="NAME|INDEX", help="which part of what --model returns are the logits")
@click.option("--tolerance", type=FiniteRange(0, 100), default=1.0, show_default=True, help="points that may go")
@click.option("--min-robust-acc", type=FiniteRange(0, 100), help="percent that no model may be significantly below")
@click.option("--alpha", type=FiniteRange(1e-6, 0.5), default=0.01, show_default=True, help="of a false alarm")
@click.option("--miss", type=FiniteRange(1e-6, 0.5), default=0.05, show_default=True, help="of an early pass")
@click.option("--budget", type=FiniteRange(0, min_open=True), metavar="MINUTES", help="stop then, decided or not")
@click.option(
    "--undecided",
    type=click.Choice(["fail", "pass"]),
    default="fail",
    show_default=True,
    help="what a run comes to that stopped with open questions",
)
@click.option("--warm-start", is_flag=True, help="try what broke the baseline's model first (less sound, see docs)")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="write JUnit XML")
@click.option("--summary", type=click.Path(path_type=Path), metavar="FILE", help="append a Markdown summary")
@click.option("--suite", metavar="NAME", help="with --update  [default: digits]")
@click.option("--attack", metavar="NAME", help="with --update  [default: autoattack-brief]")
@click.option("--examples", type=click.IntRange(1), help="with --update: a balanced subset of the suite's images")
@click.option("--norm", type=click.Choice(["Linf", "L2"]), help="with --update, in place of the suite's")
@click.option("--epsilon", type=Number(), help="with --update, in place of the suite's, in pixel scale: 8/255, not 8")
@click.option("--canaries", metavar="UNDEFENDED,ROBUST", help="with --update: two models of the suite, or none")
@shared_options
def gate_command(*, shared: Shared, **options: Any) -> None:
    """Compare robust accuracy with a baseline: exit code 1 where it fell, or the attack became weaker."""
    from benchmark.cli.gate import gate

    is_given = click.get_current_context().get_parameter_source("seed") is ParameterSource.COMMANDLINE
    if not gate(shared, **options, seed=shared.seed if is_given else None):
        sys.exit(1)


def main() -> None:
    """Run the command line; exit 2 with one line for a mistake of the user's."""
    try:
        cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave("interrupted; what was stored is kept: run the same command again to go on", 130)
    except click.ClickException as error:
        _leave(error.format_message(), 2)
    except InputError as error:
        _leave(str(error), 2)
    except OSError as error:
        _leave(f"cannot read or write: {error}; what was computed before is kept", 2)


def _leave(message: str, code: int) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
