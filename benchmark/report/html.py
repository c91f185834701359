"""The leaderboard as one self-contained HTML file: no network, no build step; sorted, filtered and opened in place."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.report.broken import broken_images
from benchmark.report.flags import FLAGS, flag_names
from benchmark.report.leaderboard import PROVEN, attacks_of
from benchmark.report.score import SuiteScores
from benchmark.report.tiers import BLACK_BOX

TEMPLATES = Environment(
    loader=PackageLoader("benchmark.report", "."),
    autoescape=True,
    keep_trailing_newline=True,
    trim_blocks=True,
    undefined=StrictUndefined,
)

TICK = 5
"""Percent; an axis ends at whole multiples of it."""


def page(
    suite: SuiteScores,
    board: pd.DataFrame,
    papers: pd.DataFrame,
    *,
    what: str,
    reading: str,
    legend: str,
    triples: Mapping[str, bytes],
    classes: Sequence[str] = (),
    files: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """The page of a suite.

    Args:
        board: of `leaderboard`; papers: of `paper_table`.
        triples: for some models a PNG of images, what was added, and what came of it.
        what: dataset, threat model and images in words; reading, legend: as under the other tables.
        classes: names of the classes, in the order of the labels; none where these are their names.
        files: of the images, by index; none where they are a dataset's own.
    """
    attacks = [*attacks_of(board), *([BLACK_BOX] * (BLACK_BOX in board))]
    shown = flag_names(flag for flags in board["flags"] for flag in flags.split())
    rows = [
        {**_row(suite, line, attacks, papers), **_image(triples.get(line["model"]))}
        for line in board.to_dict("records")
    ]
    data = {
        "what": what,
        "reading": reading,
        "legend": legend,
        "flags": {flag: why for flag, why in FLAGS.items() if flag in shown},
        "attacks": attacks,
        "dataset": str(suite.scores["dataset"].iloc[0]),
        "classes": list(classes),
        **({"files": _files_of(rows, files)} if files else {}),
        "axis": axis(zip(board["ci_low"], board["worst case"], board["ci_high"], strict=True)),
        "rows": rows,
    }
    # Inside a script element only "</" could end it early.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    ordered = board[_worst_case_first(board)]
    return TEMPLATES.get_template("page.html").render(
        title=f"Robustness leaderboard: {suite.suite}",
        data=Markup(text),
        has_bar="certified_acc" in board,
        what=what,
        reading=reading,
        legend=legend,
        plain=Markup(ordered.to_html(index=False, border=0, float_format="{:.2f}".format, na_rep="-")),
    )


def _worst_case_first(board: pd.DataFrame) -> list[str]:
    """The columns in the order in which a narrow screen shows them."""
    first = ["rank", "model", "worst case", "ci_low", "ci_high", "clean"]
    return [*first, *(name for name in board.columns if name not in first)]


def _row(suite: SuiteScores, line: dict[Any, Any], attacks: list[str], papers: pd.DataFrame) -> dict[str, Any]:
    scores = suite.scores[suite.scores["model"] == line["model"]]
    beside = papers[(papers["model"] == line["model"]) & papers["measured"].notna()]
    return {
        **{name: line[name] for name in ("model", "defense", "architecture")},
        "rank": int(line["rank"]),
        "n": int(line["n"]),
        "clean": _number(line["clean"]),
        "worst": _number(line["worst case"]),
        "low": _number(line["ci_low"]),
        "high": _number(line["ci_high"]),
        **({"proven": [_number(line[name]) for name in PROVEN]} if "certified_acc" in line else {}),
        "flags": str(line["flags"]).split(),
        "attacks": {name: _number(line[name]) for name in attacks},
        "axis": axis(zip(scores["ci_low"], scores["robust_acc"], scores["ci_high"], strict=True)),
        "cases": [_case(score) for score in scores.to_dict("records")],
        "broken": asdict(broken_images(suite, str(line["model"]))),
        "papers": [_published(one) for one in beside.to_dict("records")],
    }


def axis(intervals: Iterable[tuple[float, float, float]]) -> tuple[int, int]:
    """The ends, in percent, of an axis that fits intervals (low, value, high): multiples of 5.

    Values beyond Tukey's outer fences, three interquartile ranges from the quartiles, do not stretch it.
    """
    low, value, high = np.array(list(intervals)).T
    first, third = np.quantile(value, [0.25, 0.75])
    inside = (value >= first - 3 * (third - first)) & (value <= third + 3 * (third - first))
    return TICK * int(low[inside].min() // TICK), TICK * int(-(-high[inside].max() // TICK))


def _files_of(rows: Sequence[Mapping[str, Any]], files: Mapping[int, str]) -> dict[str, str]:
    """By index, the files of the images that the rows list as broken."""
    listed = {index for row in rows for index, *_ in row["broken"]["listed"]}
    return {str(index): files[index] for index in sorted(listed) if index in files}


def _image(png: bytes | None) -> dict[str, str]:
    return {} if png is None else {"image": f"data:image/png;base64,{base64.b64encode(png).decode()}"}


def _case(score: dict[Any, Any]) -> dict[str, Any]:
    return {
        "attack": score["attack"],
        "source": score["source_model"],
        "n": int(score["n"]),
        "robust": _number(score["robust_acc"]),
        "last": _number(score["robust_acc_last"]),
        "low": _number(score["ci_low"]),
        "high": _number(score["ci_high"]),
        "asr": _number(score["asr"]),
        "forwards": _number(score["forwards_per_image"]),
        "backwards": _number(score["backwards_per_image"]),
    }


def _published(line: dict[Any, Any]) -> dict[str, Any]:
    attack = f"{line['attack']} from {line['crafted_on']}" if line["crafted_on"] else line["attack"]
    numbers = {name: _number(line[name]) for name in ("published", "measured", "difference")}
    return {"attack": attack, **numbers, **{name: line[name] for name in ("row", "inside", "why", "source", "state")}}


def _number(value: Any) -> float | None:
    """As in scores.csv, to four decimals; None where there is nothing."""
    return None if pd.isna(value) else round(float(value), 4)
