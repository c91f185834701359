"""The tables of the README, made of the committed results: python tests/programs/readme_tables.py writes them.

Each stands between `<!-- NAME -->` and `<!-- /NAME -->`; `tests/test_readme.py` compares them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmark.report.short import short_board

ROOT = Path(__file__).parents[2]
DIGITS = ("ibp", "gair-rst", "trades-b6", "fat", "madry", "mart", "free", "fast", "gairat", "natural")
ROWS = 10
WIDTH = 100
VERDICTS = {"hold": "holds", "do not": "does not", "undecided": "undecided"}
"""A column, and how the verdicts begin that it counts."""


def digits() -> str:
    """What the main job prints of the leaderboard of digits: the head, ten of its rows and the flags."""
    return _board("digits", DIGITS)


def cifar10() -> str:
    """The same of CIFAR-10, its first ten rows."""
    return _board("cifar10", _read("cifar10/leaderboard.csv")["model"].to_list()[:ROWS])


def claims() -> str:
    """Of each suite with claims that its models can test: how many hold, do not, or are undecided."""
    rows = []
    for file in sorted((ROOT / "results").glob("*/claims.csv")):
        suite = file.parent.name
        verdicts = _read(f"{suite}/claims.csv")["verdict"]
        counts = {name: int(verdicts.str.startswith(begin).sum()) for name, begin in VERDICTS.items()}
        rows.append({"suite": suite, "claims": len(verdicts), **counts})
    return pd.DataFrame(rows).to_markdown(index=False) + "\n"


TABLES: Mapping[str, Callable[[], str]] = {"leaderboard": digits, "cifar10": cifar10, "claims": claims}


def with_tables(readme: str) -> str:
    """The README's text with each table as it is now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = readme.partition(begin)
        readme = before + begin + table() + end + rest.partition(end)[2]
    return readme


def _board(suite: str, models: Sequence[str]) -> str:
    """The head of the short leaderboard, the rows of these models, and their flags."""
    board = _read(f"{suite}/leaderboard.csv")
    lines = short_board(board, WIDTH).splitlines()
    rows = {line.split("|")[2].strip(): line for line in lines if line.startswith("| ")}
    end = lines.index("") if "" in lines else len(lines)
    return "\n".join([*lines[:2], *(rows[name] for name in models), *lines[end:], ""])


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / name).fillna({"flags": ""})


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_tables(page.read_text()))
