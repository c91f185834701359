"""Which columns each table has in LaTeX: models as rows, since a page is narrower than a benchmark has models."""

from itertools import groupby
from typing import Any

import pandas as pd

from benchmark.report.claims import asked
from benchmark.report.flags import FLAGS, name_of
from benchmark.report.latex import LatexTable
from benchmark.report.leaderboard import attacks_of
from benchmark.report.papers import attack_of, with_std
from benchmark.report.tiers import BLACK_BOX

NOTHING = "--"
NAMES = ("model", "defense", "architecture")


def leaderboard_latex(board: pd.DataFrame) -> LatexTable:
    """The leaderboard; flags are numbered behind a model's name and explained under the table."""
    attacks = attacks_of(board)
    columns = ["rank", *NAMES, "clean", *attacks, *([BLACK_BOX] * (BLACK_BOX in board)), "worst case"]
    lines, caveats = [], {}
    for row, line in enumerate(board.to_dict("records")):
        lines.append([*(_cell(line[name]) for name in columns), _interval(line), str(line["n"])])
        caveats[0, row] = [f"{flag}: {FLAGS.get(name_of(flag), '')}" for flag in str(line["flags"]).split()]
    return LatexTable([*columns, "95% interval", "n"], [lines], left=NAMES, caveats=caveats)


def white_box_latex(shown: pd.DataFrame) -> LatexTable:
    """White-box accuracies as people read them (an attack a row), turned round; passes below."""
    *models, forwards, backwards = shown.columns[1:]
    groups = [[[name, *map(str, shown[name])] for name in names] for names in (models, (forwards, backwards))]
    return LatexTable(["model", *shown["attack"]], groups, left=("model",))


def black_box_latex(crossed: pd.DataFrame) -> LatexTable:
    """Transfer: a model judged a row, a column for each attack and each model that it was crafted on."""
    if crossed.empty:
        return LatexTable([], [])
    models = [str(name) for name in crossed.columns if name not in ("attack", "source")]
    lines = [[model, *map(_cell, crossed[model])] for model in models]
    over = [(f"{attack} crafted on", len(list(same))) for attack, same in groupby(crossed["attack"])]
    return LatexTable(["model", *crossed["source"]], [lines], left=("model",), over=[("", 1), *over])


def papers_latex(papers: pd.DataFrame) -> LatexTable:
    """Published beside measured, then what is not measured here; what can set the two apart is numbered."""
    headers = ["row", "model", "attack", "n", "published", "measured", "95% interval", "difference", "inside", "state"]
    groups: list[list[list[str]]] = [[], []]
    caveats = {}
    line: Any
    for line in papers.itertuples():
        is_measured = not pd.isna(line.measured)
        group = groups[0 if is_measured else 1]
        caveats[0 if is_measured else 1, len(group)] = str(line.why).split("; ") if line.why else []
        measured = [NOTHING] * 4
        if is_measured:
            interval = _interval({"ci_low": line.ci_low, "ci_high": line.ci_high})
            measured = [_cell(line.measured), interval, _signed(line.difference), str(line.inside)]
        n = f"{line.n:.0f}" if is_measured else NOTHING
        names = [str(line.row), str(line.model) or NOTHING, attack_of(line), n]
        group.append([*names, with_std(line), *measured, str(line.state)])
    left = ("row", "model", "attack", "inside", "state")
    return LatexTable(headers, groups, left=left, caveats=caveats, marked="row")


def claims_latex(claims: pd.DataFrame) -> LatexTable:
    """Claims and what became of them; notes are numbered. Numbers of images and trainings stand where they vary."""
    varying = [name for name in ("n", "trainings") if claims[name].nunique() > 1]
    headers = ["claim", "difference asked for", "measured", "95% interval", "published", *varying, "verdict"]
    lines, caveats = [], {}
    for row, line in enumerate(claims.to_dict("records")):
        difference = f"{line['first']}, minus {line['second']}: {asked(line['direction'], line['size'])}"
        interval = f"[{line['ci_low']:+.2f}, {line['ci_high']:+.2f}]"
        numbers = [_signed(line["effect"]), interval, _signed(line["published"])]
        others = [str(line[name]) for name in (*varying, "verdict")]
        lines.append([f"{line['claim']} ({line['paper']})", difference, *numbers, *others])
        caveats[0, row] = [str(line["note"])] if line["note"] else []
    wide = {"claim": 0.25, "difference asked for": 0.22, "verdict": 0.1}
    return LatexTable(headers, [lines], wide=wide, size="scriptsize", caveats=caveats, marked="verdict")


def epsilon_latex(curves: pd.DataFrame) -> LatexTable:
    """Robust accuracy against epsilon: a model a row, an epsilon a column."""
    if curves.empty:
        return LatexTable([], [])
    crossed = curves.pivot(index="model", columns="epsilon", values="robust_acc")
    lines = [[str(model), *map(_cell, values)] for model, values in zip(crossed.index, crossed.to_numpy(), strict=True)]
    over = [("", 1), (f"{curves['attack'].iloc[0]} at epsilon", len(crossed.columns))]
    return LatexTable(["model", *(f"{epsilon:g}" for epsilon in crossed.columns)], [lines], left=("model",), over=over)


def plain_latex(table: pd.DataFrame) -> LatexTable:
    """Any table, column by column."""
    left = [str(name) for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    lines = [list(map(_cell, line)) for line in table.itertuples(index=False)]
    return LatexTable([str(name) for name in table.columns], [lines], left=left)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return NOTHING if pd.isna(value) else f"{value:.2f}"
    return str(value)


def _signed(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:+.2f}"


def _interval(line: Any) -> str:
    return f"{line['ci_low']:.2f}--{line['ci_high']:.2f}"
