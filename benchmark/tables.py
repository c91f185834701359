"""Scores to tables: CSV for programs, Markdown for people. The same store gives the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.papers import paper_table, papers_markdown
from benchmark.published import FIGURES, ROWS, Figure, Row
from benchmark.score import Judged, SuiteScores, common_images, percent, wilson
from model_zoo.checkpoint import atomic_write

READINGS = {
    "any": "An image counts as robust if it is classified correctly at every judged iterate.",
    "last": "An image counts as robust if it is classified correctly at the last iterate, as in the papers' tables.",
}
BOTH_READINGS = "Any iterate; in brackets, the last iterate. Passes are per image, averaged over the models."
FLAGS = {
    "probabilities": "the model returns probabilities, not logits: gradient attacks may be too weak",
    "randomized": "two passes over the same images differ: gradient attacks may be too weak",
    "zero-gradients": "most images have no gradient to follow: gradient attacks tell little",
    "transfer-beats-white-box": "an attack does better from another model: a sign of masked gradients",
    "fewer-images": "the worst case is over fewer images than that of other models",
    "fewer-attacks": "not all attacks of this table were run: its worst case is over fewer",
}


def write_tables(
    suite: SuiteScores, folder: Path, *, rows: Sequence[Row] = ROWS, figures: Sequence[Figure] = FIGURES
) -> str:
    """Write every table of a suite into a folder.

    Args:
        rows, figures: what is published.

    Returns: the text to print: leaderboard, white-box and black-box tables.
    """
    if suite.scores.empty:
        return f"No case of suite {suite.suite} is complete yet; run the benchmark again to go on."
    write_csv(folder / "scores.csv", suite.scores.round(dict.fromkeys(suite.scores.columns.drop("epsilon"), 4)))
    write_csv(folder / "timing.csv", suite.timing)
    leaderboard, reading = _leaderboard(suite), READINGS[suite.reading]
    crossed = f"Rows: crafted on. Columns: judged on. {reading}"
    tables = {
        "leaderboard": ("Leaderboard", leaderboard, f"{reading}\n{_legend(suite, leaderboard)}"),
        "white_box": ("White-box attacks", _white_box(suite), BOTH_READINGS),
        "black_box": ("Transfer (black-box) attacks", _black_box(suite), crossed),
    }
    shown = {
        name: (table, _section(title, suite, _markdown(table), note)) for name, (title, table, note) in tables.items()
    }
    papers = paper_table(suite, rows, figures)
    shown["papers"] = papers, _section("Beside the papers", suite, papers_markdown(papers), reading)
    for name, (table, text) in shown.items():
        if table.empty:
            for suffix in ("csv", "md"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
            continue
        atomic_write(folder / f"{name}.md", text.encode())
        write_csv(folder / f"{name}.csv", table.round(4))
    return "\n".join(text for table, text in shown.values() if not table.empty)


def _leaderboard(suite: SuiteScores) -> pd.DataFrame:
    """One row a model, most robust first; one column a white-box attack; the worst case over all that is stored."""
    rows = []
    attacks = list(dict.fromkeys(_white(suite.scores)["attack"]))
    for model, scores in suite.scores.groupby("model", sort=False):
        worst = suite.worst[str(model)]
        low, high = wilson(int(worst.sum()), len(worst))
        first = scores.sort_values("n", ascending=False, kind="stable").iloc[0]
        rows.append(
            {
                "model": model,
                "defense": first["defense"],
                "architecture": first["architecture"],
                "clean": first["clean_acc"],
                **{str(s["attack"]): s[_column(suite, s)] for _, s in _white(scores).iterrows()},
                "worst case": percent(worst),
                "95% interval": f"{low:.2f}-{high:.2f}",
                "flags": " ".join(sorted({*str(first["flags"]).split(), *_derived_flags(suite, str(model), attacks)})),
                "n": len(worst),
            }
        )
    columns = ["model", "defense", "architecture", "clean", *attacks, "worst case", "95% interval", "flags", "n"]
    return pd.DataFrame(rows, columns=columns).sort_values(["worst case", "clean"], ascending=False, kind="stable")


def _derived_flags(suite: SuiteScores, model: str, attacks: Sequence[str]) -> list[str]:
    """Caveats that only the rows of a model together show, given the white-box attacks of the whole table."""
    own = [pair for pair in zip(suite.entries, suite.judged, strict=True) if pair[0]["model"] == model]
    white = {entry["attack"]: judged for entry, judged in own if not entry["source_model"]}
    flags = {
        "fewer-attacks": bool(set(attacks) - set(white)),
        "fewer-images": len(suite.worst[model]) < max(map(len, suite.worst.values())),
        "transfer-beats-white-box": any(
            _is_beaten(white[entry["attack"]], judged)
            for entry, judged in own
            if entry["source_model"] and entry["attack"] in white
        ),
    }
    return [flag for flag, applies in flags.items() if applies]


def _is_beaten(white: Judged, transferred: Judged) -> bool:
    """Whether an attack leaves fewer images standing from another model, of those that both have seen."""
    images = common_images([white, transferred])
    return bool(transferred.on(images).sum() < white.on(images).sum())


def _white_box(suite: SuiteScores) -> pd.DataFrame:
    """Robust accuracy by model and attack, any iterate, with the last iterate in brackets; and what the attack cost."""
    rows: dict[str, dict[str, Any]] = {}
    for _, score in _white(suite.scores).iterrows():
        last = "" if pd.isna(score["robust_acc_last"]) else f" ({score['robust_acc_last']:.2f})"
        row = rows.setdefault(str(score["attack"]), {"attack": score["attack"]})
        row[str(score["model"])] = f"{score['robust_acc']:.2f}{last}"
    for attack, row in rows.items():
        cost = suite.scores[(suite.scores["attack"] == attack) & (suite.scores["source_model"] == "")]
        row["forward passes"] = f"{cost['forwards_per_image'].mean():.0f}"
        row["backward passes"] = f"{cost['backwards_per_image'].mean():.0f}"
    models = list(dict.fromkeys(_white(suite.scores)["model"]))
    return pd.DataFrame(list(rows.values()), columns=["attack", *models, "forward passes", "backward passes"])


def _black_box(suite: SuiteScores) -> pd.DataFrame:
    """Robust accuracy of each target (columns) under examples crafted on each source (rows)."""
    crossed = suite.scores[suite.scores["source_model"] != ""]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for _, score in crossed.iterrows():
        key = str(score["attack"]), str(score["source_model"])
        row = rows.setdefault(key, {"attack": key[0], "source": key[1]})
        row[str(score["model"])] = score[_column(suite, score)]
    targets = list(dict.fromkeys(crossed["model"]))
    ordered = sorted(rows.items(), key=lambda item: _rank(suite, item[0]))
    return pd.DataFrame([row for _, row in ordered], columns=["attack", "source", *targets] if rows else None)


def _rank(suite: SuiteScores, key: tuple[str, str]) -> tuple[int, int]:
    """Attacks in the order of the suite, sources in the order of the models."""
    attacks, models = list(dict.fromkeys(suite.scores["attack"])), list(dict.fromkeys(suite.scores["model"]))
    return attacks.index(key[0]), models.index(key[1]) if key[1] in models else len(models)


def _white(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[scores["source_model"] == ""]


def _column(suite: SuiteScores, score: "pd.Series[Any]") -> str:
    """The column that the suite's tables read; an attack without a last iterate has one reading only."""
    return "robust_acc_last" if suite.reading == "last" and pd.notna(score["robust_acc_last"]) else "robust_acc"


def _markdown(table: pd.DataFrame) -> str:
    return _rounded(table).to_markdown(index=False, disable_numparse=True, colalign=_alignment(table))


def _section(title: str, suite: SuiteScores, body: str, note: str) -> str:
    first = suite.scores.iloc[0]
    threat = f"{first['norm']} {first['epsilon']:.6g}"
    what = f"{first['dataset']}, {threat}, {_images(suite)}, accuracies in percent."
    return f"## {title}: {suite.suite}\n\n{what}\n{note}\n\n{body}\n"


def _images(suite: SuiteScores) -> str:
    """How many images were attacked, and which attacks have seen a part of them only."""
    largest = max(entry["n"] for entry in suite.entries)
    sizes: dict[str, set[int]] = {}
    for entry in suite.entries:
        name = f"{entry['attack']} by transfer" if entry["source_model"] else entry["attack"]
        sizes.setdefault(name, set()).add(entry["n"])
    parts = [f"{name} on {' or '.join(map(str, sorted(n)))}" for name, n in sizes.items() if min(n) < largest]
    return f"{largest} test images" + (f" ({', '.join(parts)} of them)" if parts else "")


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as they are read: two decimals, and a dash where there is nothing."""
    return table.map(lambda cell: f"{cell:.2f}" if isinstance(cell, float) and cell == cell else cell).fillna("-")


def _alignment(table: pd.DataFrame) -> list[str]:
    return ["right" if pd.api.types.is_numeric_dtype(kind) else "left" for kind in table.dtypes]


def _legend(suite: SuiteScores, leaderboard: pd.DataFrame) -> str:
    used = sorted({flag for flags in leaderboard.get("flags", []) for flag in flags.split()})
    part = "" if suite.scores["n"].nunique() == 1 else ", on those n images that all of them have seen"
    worst = f"Worst case: over all attacks stored for the model, transfer included{part}; its 95% interval is Wilson's."
    return " ".join([worst, *(f"Flag `{flag}`: {FLAGS[flag]}." for flag in used)])


def write_csv(path: Path, table: pd.DataFrame) -> None:
    atomic_write(path, table.to_csv(index=False, lineterminator="\n").encode())
