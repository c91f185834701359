"""The command line: the benchmark itself, the commands beside it, and one line for every mistake."""

import sys
from typing import Any

import click

from attacks.errors import InputError
from benchmark.cli.check_commands import certify_command, corruptions_command, diagnose_command
from benchmark.cli.commands import COMMANDS
from benchmark.cli.gate_commands import gate_group, gate_update_command
from benchmark.cli.headings import HeadedGroup, is_alone, option
from benchmark.cli.options import (
    ATTACK_WORKERS,
    ATTACKING,
    CHECKPOINTS,
    DATA,
    DATASET,
    DRAWS,
    OWN_DATA,
    OWN_MODEL,
    OWN_NAME,
    QUIET,
    RAY,
    REJECTS,
    RESULTS,
    SEED,
    THREAT,
    WHAT,
    Shared,
    takes,
)
from benchmark.cli.train_commands import fit_command, substitute_command, train_command
from benchmark.cli.values import Examples

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
    "Gradient attacks climb this loss in place of their own: cross-entropy, cross-entropy-x10, probability, margin or "
    "dlr; features or features:LAYER for the distance from the clean image's; difference or dlr-targeted where they "
    "have targets.",
    metavar="NAME",
)
@option("--keep-images", WHAT, "Adversarial images are kept, for `store rejudge`.", is_flag=True)
@takes(
    *(DRAWS, THREAT, SEED, OWN_MODEL, REJECTS, OWN_NAME, OWN_DATA, DATASET, DATA, CHECKPOINTS, RESULTS),
    *(ATTACKING, ATTACK_WORKERS, RAY, QUIET),
)
@click.pass_context
def cli(ctx: click.Context, /, *, shared: Shared, **options: Any) -> None:
    """Robust accuracy that you can defend. Without a command: run the benchmark and show its leaderboard."""
    if is_alone(ctx):
        from benchmark.cli.run import run

        run(shared, **options)


for command in (
    *(train_command, substitute_command, fit_command, diagnose_command, certify_command, corruptions_command),
    *(*COMMANDS, gate_group),
):
    cli.add_command(command)


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
