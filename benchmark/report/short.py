"""The leaderboard in short, for a terminal: what everybody asks first, and in which files the rest stands."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.box import MARKDOWN
from rich.console import Console
from rich.measure import measure_renderables
from rich.table import Table

from benchmark.report.leaderboard import attacks_of
from benchmark.stats.ranks import SEPARATED
from benchmark.suites.case import ADAPTIVE

WIDTH = 100
"""The most columns of a line."""
LEGEND = (
    "Worst case: over all attacks stored for the model, transfer included; its 95% Wilson interval. Rank: shared "
    f"unless an exact McNemar test on the same images tells two models apart (p < {SEPARATED})."
)


def terminal_width() -> int:
    """The columns of the terminal, `WIDTH` at most, and exactly these where the text goes to a file or a pipe."""
    console = Console()
    return min(WIDTH, console.width) if console.is_terminal else WIDTH


def short_board(board: pd.DataFrame, width: int) -> str:
    """Rank, model, clean accuracy, worst case, its interval, the number of flags; and attacks where they fit.

    Args:
        board: of `leaderboard`.
        width: in columns.

    Returns: a Markdown table, accuracies in percent, and below it the flags. Of the attacks it has those that leave the
        fewest images standing, in the order of the leaderboard, and beside an adaptive attack the plain one.
    """
    attacks = attacks_of(board)
    shown: list[str] = []
    for attack in board[attacks].mean().sort_values(kind="stable").index:
        wider = [name for name in attacks if name in (*shown, attack, attack.removesuffix(ADAPTIVE))]
        if _needed(_table(board, wider)) <= width:
            shown = wider
    table = io.StringIO()
    Console(file=table, width=width, color_system=None).print(_table(board, shown))
    flags = "; ".join(
        f"{model} {', '.join(names.split())}"
        for model, names in zip(board["model"], board["flags"], strict=True)
        if names
    )
    lines = [line for line in table.getvalue().splitlines() if not line.isspace()]
    return "\n".join(lines) + (f"\n\n{wrapped(f'Flags: {flags}.', width)}" if flags else "")


def _table(board: pd.DataFrame, attacks: Sequence[str]) -> Table:
    table = Table(box=MARKDOWN)
    for name in ("rank", "model", "clean", *attacks, "worst case", "interval", "flags"):
        table.add_column(name, justify="left" if name == "model" else "right", overflow="fold")
    for line in board.to_dict("records"):
        points = [_points(line[name]) for name in ("clean", *attacks, "worst case")]
        interval = f"{_points(line['ci_low'])}-{_points(line['ci_high'])}"
        table.add_row(str(line["rank"]), str(line["model"]), *points, interval, str(len(str(line["flags"]).split())))
    return table


def _points(percentage: float) -> str:
    return "-" if pd.isna(percentage) else f"{percentage:.1f}"


def _needed(table: Table) -> int:
    """The columns that a table takes where nothing in it is broken."""
    console = Console(width=10_000)
    return measure_renderables(console, console.options, [table]).maximum


def file_list(folder: Path, files: Mapping[str, str]) -> str:
    """Lines that say where the tables are and what they hold.

    Args:
        files: by name, what it holds.
    """
    longest = max(map(len, files))
    return "\n".join([f"The rest is in {folder}:", *(f"  {name:<{longest}}  {what}" for name, what in files.items())])


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most a width, broken at spaces alone."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
