"""Scores to tables: CSV for programs, Markdown for people. The same store gives the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from benchmark.report.attack_flags import SIGNIFICANT, flag_table
from benchmark.report.black_box import transfer_table
from benchmark.report.claims import claim_table, claims_markdown, claims_note
from benchmark.report.exports import model_info
from benchmark.report.html import page
from benchmark.report.latex import LatexTable
from benchmark.report.latex_tables import (
    black_box_latex,
    claims_latex,
    epsilon_latex,
    leaderboard_latex,
    papers_latex,
    plain_latex,
    white_box_latex,
)
from benchmark.report.leaderboard import formatted, leaderboard, legend, white
from benchmark.report.other_selections import epsilon_table, seed_table
from benchmark.report.own_images import class_names, file_names
from benchmark.report.papers import paper_table, papers_markdown
from benchmark.report.queries import QUERY_NOTE, query_table
from benchmark.report.score import CELL, TIMING, SuiteScores
from benchmark.report.tiers import TIER_NOTE, tier_table
from benchmark.report.trainings import training_table, trainings_note
from benchmark.suites.published import FIGURES, ROWS, Figure, Row
from model_zoo.files.atomic import atomic_write

READINGS = {
    "any": "An image counts as robust if it is classified correctly at every judged iterate.",
    "last": "An image counts as robust if it is classified correctly at the last iterate, as in the papers' tables.",
}
CROSSED = "Rows: crafted on. Columns: judged on."
LAST = " (last)"
"""Behind a model's name: its column of the last iterate."""
BOTH_READINGS = "Any iterate; in brackets, the last iterate. Passes are per image, averaged over the models."

NAMED = {
    "leaderboard.md": "all attacks, and what the flags mean",
    "leaderboard.html": "the leaderboard to sort and filter; .tex for papers",
    "scores.csv": "a row for each model and attack; all tables above are .csv and .tex, too",
}
"""What of some files is said in the terminal; of other tables it is their title."""
NO_FLAG = "No flag is raised by two cases of a model."


def write_tables(
    suite: SuiteScores,
    folder: Path,
    *,
    others: Sequence[SuiteScores] = (),
    triples: Mapping[str, bytes] = MappingProxyType({}),
    rows: Sequence[Row] = ROWS,
    figures: Sequence[Figure] = FIGURES,
) -> dict[str, str]:
    """Write every table of a suite into a folder.

    Args:
        others: the same images at other epsilons or under other seeds.
        triples: for some models a PNG of images, what was added, and what came of it.
        rows, figures: what is published.

    Returns: the files to name, each with what it holds; none are written while no case is complete.
    """
    if suite.scores.empty:
        return {}
    write_csv(folder / "scores.csv", suite.scores.round(dict.fromkeys(suite.scores.columns.drop("epsilon"), 4)))
    write_csv(folder / "timing.csv", _timing(suite, folder / "timing.csv"))
    board, white_box, reading = leaderboard(suite), _white_box(suite), READINGS[suite.reading]
    board_note = legend(suite, board)
    crossed, tiers, compared = transfer_table(suite), tier_table(suite), flag_table(suite)
    with_last, raised = _with_last(white_box), _raised(compared)
    papers, claims = paper_table(suite, rows, figures), claim_table(suite)
    curves, seeds = epsilon_table(suite, others), seed_table(suite, others)
    trainings, queries = training_table(suite), query_table(suite)
    shown = {
        "leaderboard": (board, "Leaderboard", _markdown(formatted(board)), f"{reading}\n{board_note}"),
        "white_box": (white_box, "White-box attacks", _markdown(with_last), BOTH_READINGS),
        "black_box": (crossed, "Transfer (black-box) attacks", _markdown(crossed), f"{CROSSED} {reading}"),
        "tiers": (tiers, "Without gradients (black box)", _markdown(tiers), f"{TIER_NOTE} {reading}"),
        "queries": (queries, "Queries", _markdown(queries), f"{QUERY_NOTE} {reading}"),
        "papers": (papers, "Beside the papers", papers_markdown(papers, suite.suite), reading),
        "claims": (claims, "Claims of the papers", claims_markdown(claims), f"{claims_note(claims)} {reading}"),
        "epsilon": (curves, "Against epsilon", _markdown(curves), f"At 0 the clean accuracy. {reading}"),
        "flags": (compared, "Flags", _markdown(raised) or NO_FLAG, _flag_note(compared)),
        "trainings": (trainings, "Over trainings", _markdown(trainings), f"{trainings_note()} {reading}"),
        "seeds": (seeds, "Over seeds", _markdown(seeds), f"Seeds of the attack and of the training. {reading}"),
    }
    plain = {"tiers": tiers, "queries": queries, "flags": raised, "trainings": trainings, "seeds": seeds}
    in_latex = {
        "leaderboard": leaderboard_latex(board),
        "white_box": white_box_latex(with_last),
        "black_box": black_box_latex(crossed),
        "papers": papers_latex(papers),
        "claims": claims_latex(claims),
        "epsilon": epsilon_latex(curves),
        **{name: plain_latex(table) for name, table in plain.items()},
    }
    html = page(
        suite,
        board,
        papers,
        what=what_was_attacked(suite),
        reading=reading,
        legend=board_note,
        triples=triples,
        classes=class_names(folder, str(suite.scores["dataset"].iloc[0])),
        files=file_names(folder),
    )
    atomic_write(folder / "leaderboard.html", html.encode())
    atomic_write(folder / "model_info.json", model_info(suite, board).encode())
    written = {}
    for name, (table, title, body, note) in shown.items():
        write_latex(
            folder / f"{name}.tex", in_latex[name], f"{title}: {suite.suite}. {what_was_attacked(suite)}\n{note}"
        )
        if table.empty:
            for suffix in ("csv", "md"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
            continue
        atomic_write(folder / f"{name}.md", _section(title, suite, body, note).encode())
        written[f"{name}.md"] = title
        write_csv(folder / f"{name}.csv", table.round(dict.fromkeys(table.columns.difference(["p", "p_holm"]), 4)))
    return {**written, **NAMED}


def _white_box(suite: SuiteScores) -> pd.DataFrame:
    """Robust accuracy by attack and model, any iterate and (where there is one) the last; and what the attack cost."""
    scores = white(suite.scores).astype({"robust_acc_last": float})  # no attack may have a last iterate
    passes = ["forwards_per_image", "backwards_per_image"]
    readings = {"robust_acc": "", "robust_acc_last": LAST}
    crossed = scores.pivot(index="attack", columns="model", values=list(readings))
    columns = [(reading, model) for model in scores["model"].unique() for reading in readings]
    table = crossed.reindex(index=pd.Index(scores["attack"].unique(), name="attack"))[columns]
    table.columns = pd.Index([f"{model}{readings[reading]}" for reading, model in columns])
    cost = scores.groupby("attack")[passes].agg(pd.Series.mean)  # a group's own mean rounds differently
    cost.columns = pd.Index(["forward passes", "backward passes"])
    return table.join(cost).reset_index()


def write_latex(path: Path, table: LatexTable, note: str) -> None:
    """Write a table that has lines, and remove one that has none any more."""
    if any(table.groups):
        atomic_write(path, table.text(note).encode())
    else:
        path.unlink(missing_ok=True)


def _raised(compared: pd.DataFrame) -> pd.DataFrame:
    """The comparisons that raise a flag, as people read them."""
    raised = compared[compared["raised"]].drop(columns="raised")
    numbers = {"points": "{:.1f}", "margin": "{:.0f}", "p": "{:.1g}", "p_holm": "{:.1g}"}
    for column, form in numbers.items():
        raised[column] = raised[column].map(form.format)
    return raised


def _flag_note(compared: pd.DataFrame) -> str:
    return (
        "A flag is raised where an attack breaks more than one that should be the stronger, by more points than the "
        "margin, and the one-sided exact McNemar test on the images that both saw tells the two apart (p_holm < "
        f"{SIGNIFICANT}, by Holm's correction for the {len(compared)} comparisons of this table)."
    )


def _with_last(table: pd.DataFrame) -> pd.DataFrame:
    """The white-box table for people: the last iterate in brackets behind any iterate, whole passes."""
    shown = table[["attack"]].copy()
    for model in table.columns[1:-2:2]:
        pairs = zip(table[model], table[f"{model}{LAST}"], strict=True)
        shown[model] = ["-" if pd.isna(a) else f"{a:.2f}" + ("" if pd.isna(b) else f" ({b:.2f})") for a, b in pairs]
    return shown.join(table.iloc[:, -2:].map(lambda passes: f"{passes:.0f}"))


def _markdown(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    return _rounded(table).to_markdown(index=False, disable_numparse=True, colalign=_alignment(table))


def _section(title: str, suite: SuiteScores, body: str, note: str) -> str:
    return f"## {title}: {suite.suite}\n\n{what_was_attacked(suite)}\n{note}\n\n{body}\n"


def what_was_attacked(suite: SuiteScores) -> str:
    """Dataset, threat model and images."""
    first = suite.scores.iloc[0]
    threat = f"{first['norm']} {first['epsilon']:.6g}"
    return f"{first['dataset']}, {threat}, {_images(suite)}, accuracies in percent."


def _images(suite: SuiteScores) -> str:
    """How many images were attacked, and which attacks have seen a part of them only."""
    largest = max(entry.n for entry in suite.entries)
    sizes: dict[str, set[int]] = {}
    for entry in suite.entries:
        name = f"{entry.attack} by transfer" if entry.source_model else entry.attack
        sizes.setdefault(name, set()).add(entry.n)
    parts = [f"{name} on {min(n)}" for name, n in sizes.items() if len(n) == 1 and min(n) < largest]
    of_some = ["of some models attacks saw fewer"] * any(len(n) > 1 for n in sizes.values())
    said = [*([f"{', '.join(parts)} of them"] if parts else []), *of_some]
    return f"{largest} test images" + (f" ({'; '.join(said)})" if said else "")


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as they are read: two decimals, and a dash where there is nothing."""
    return table.map(lambda cell: f"{cell:.2f}" if isinstance(cell, float) and cell == cell else cell).fillna("-")


def _alignment(table: pd.DataFrame) -> list[str]:
    return ["right" if pd.api.types.is_numeric_dtype(kind) else "left" for kind in table.dtypes]


def _timing(suite: SuiteScores, there: Path) -> pd.DataFrame:
    """How long each row took, as a store recorded it, else as the file that is there says; else there is no row."""
    known = pd.read_csv(there, dtype=str, keep_default_na=False) if there.exists() else suite.timing
    if list(known.columns) != list(TIMING):
        known = suite.timing
    by_cell = {tuple(row[:3]): row for table in (known, suite.timing) for row in table.itertuples(index=False)}
    cells = suite.scores[list(CELL)].itertuples(index=False, name=None)
    return pd.DataFrame([by_cell[cell] for cell in cells if cell in by_cell], columns=list(TIMING))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table whole or not at all, the same bytes on every system."""
    atomic_write(path, table.to_csv(index=False, lineterminator="\n").encode())
