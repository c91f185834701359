"""The gate's two commands and the options that each takes."""

import sys
from pathlib import Path
from typing import Any

import click

from benchmark.cli.gate_options import COMPARING, UPDATING
from benchmark.cli.headings import HeadedGroup, is_alone
from benchmark.cli.options import (
    ATTACK_WORKERS,
    ATTACKING,
    CHECKPOINTS,
    DATA,
    DATASET,
    OWN_DATA,
    OWN_MODEL,
    OWN_NAME,
    QUIET,
    REJECTS,
    RESULTS,
    Shared,
    takes,
)

# What loads torch is imported inside the commands, so that help and mistakes answer at once.


class GateGroup(HeadedGroup):
    """The gate, where --update is another word for its command `update`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--update" in args:
            args = ["update", *(word for word in args if word != "--update")]
        return super().parse_args(ctx, args)


GATE = (OWN_MODEL, REJECTS, OWN_NAME, OWN_DATA, DATA, CHECKPOINTS, RESULTS, ATTACKING, ATTACK_WORKERS, QUIET)


@click.group("gate", cls=GateGroup, invoke_without_command=True)
@takes(COMPARING, *GATE)
@click.pass_context
def gate_group(ctx: click.Context, /, *, shared: Shared, baseline: Path | None, **options: Any) -> None:
    """Compare robust accuracy with a baseline: exit code 1 where it fell, or the attack became weaker."""
    if not is_alone(ctx):
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
