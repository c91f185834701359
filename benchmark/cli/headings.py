"""Commands whose options stand in groups in the help, each under a heading; groups may be commands by themselves."""

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from attacks.errors import InputError


class HeadedOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, heading: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose help has a heading for each group of options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class HeadedGroup(HeadedCommand, click.Group):
    """A group of such commands, with options of its own."""

    command_class = HeadedCommand
    group_class = type

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


Decorator = Callable[[Any], Any]
"""Adds an option to a command."""


def option(name: str, heading: str, text: str, *, dest: str | None = None, **settings: Any) -> Decorator:
    """`click.option` under a heading of the help.

    Args:
        name: with its dashes. text: the help, a sentence. dest: the name of the command's parameter, where it differs.
        settings: those of click; a default is shown.
    """
    names = (name,) if dest is None else (name, dest)
    shown = settings.get("default") is not None
    return click.option(*names, cls=HeadedOption, heading=heading, help=text, show_default=shown, **settings)


def is_alone(ctx: click.Context) -> bool:
    """Whether no command follows that of the context. Raises: InputError for options that stand before one."""
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if ctx.invoked_subcommand is not None and given:
        raise InputError(
            f"--{given[0].replace('_', '-')} stands before {ctx.invoked_subcommand!r}; options go behind it"
        )
    return ctx.invoked_subcommand is None
