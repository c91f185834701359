"""Pictures of a suite's verdicts, as PNG and SVG. The same verdicts (and matplotlib) give the same bytes.

Colours are Okabe and Ito's, which the colour-blind can tell apart; where colours run out, markers and names go on.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmark.report.score import SuiteScores
from benchmark.stats.shares import percent, wilson
from model_zoo.files.atomic import atomic_write

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "robustness",
    "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
}
DPI = 150
SHOWN = 12
"""The number of models that a line plot shows: the most robust ones, and the least robust one."""


def write_pictures(suite: SuiteScores, board: pd.DataFrame, curves: pd.DataFrame, folder: Path) -> list[str]:
    """Draw what the verdicts of a suite have to show.

    Args:
        board: of `leaderboard`; curves: of `epsilon_table`.
        folder: the pictures' own; pictures that there is nothing to draw for any more are removed.

    Returns: the names of the pictures.
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "trade-off": _trade_off(board, suite),
            "steps": _steps(suite, board),
            "epsilon": _epsilons(suite, board, curves),
            "transfer": _transfer(suite),
            "classes": _classes(suite, board),
        }
        drawn = {name: figure for name, figure in figures.items() if figure is not None}
        for name, figure in drawn.items():
            for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
                atomic_write(folder / f"{name}.{suffix}", buffer.getvalue())
    for path in folder.glob("*.*"):
        if path.stem not in drawn and path.suffix in (".png", ".svg"):
            path.unlink()
    return list(drawn)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _trade_off(board: pd.DataFrame, suite: SuiteScores) -> Figure:
    """Clean against worst-case accuracy, a point a model, both with their intervals."""
    figure, axes = _figure(7, 5)
    for place, line in enumerate(board.to_dict("records")):
        n = max(entry.n for entry in suite.entries if entry.model == line["model"])
        low, high = wilson(round(line["clean"] * n / 100), n)
        axes.errorbar(
            line["clean"],
            line["worst case"],
            xerr=[[line["clean"] - low], [high - line["clean"]]],
            yerr=[[line["worst case"] - line["ci_low"]], [line["ci_high"] - line["worst case"]]],
            **_style(place),
            linestyle="none",
            elinewidth=0.8,
            label=line["model"],
        )
    axes.set(xlabel="clean accuracy (%)", ylabel="worst case over all attacks (%)", title=f"Trade-off: {suite.suite}")
    _legend(axes, len(board))
    return figure


def _steps(suite: SuiteScores, board: pd.DataFrame) -> Figure | None:
    """Robust accuracy against the steps of PGD: does it converge? None where there are not two step counts."""
    curves: dict[str, dict[int, tuple[float, float, float]]] = {}
    for entry, judged in zip(suite.entries, suite.judged, strict=True):
        steps = _pgd_steps(entry.attack)
        if steps and not entry.source_model:
            curves.setdefault(entry.model, {})[steps] = percent(judged.robust), *_interval(judged.robust)
    if len({steps for points in curves.values() for steps in points}) < 2:
        return None
    figure, axes = _figure(7, 4.6)
    for place, model in enumerate(_plotted_models(board)):
        points = curves.get(model, {})
        _curve(axes, place, model, sorted(points), [points[steps] for steps in sorted(points)])
    axes.set(
        xscale="log", xlabel="steps of PGD", ylabel="robust accuracy (%)", title=f"Does PGD converge? {suite.suite}"
    )
    ticks = sorted({steps for points in curves.values() for steps in points})
    axes.set_xticks(ticks, [str(steps) for steps in ticks])
    axes.minorticks_off()
    _legend(axes, len(_plotted_models(board)))
    return figure


def _epsilons(suite: SuiteScores, board: pd.DataFrame, curves: pd.DataFrame) -> Figure | None:
    """Robust accuracy against epsilon. None where there are not two."""
    if curves.empty:
        return None
    figure, axes = _figure(7, 4.6)
    for place, model in enumerate(_plotted_models(board)):
        own = curves[curves["model"] == model]
        points = list(zip(own["robust_acc"], own["ci_low"], own["ci_high"], strict=True))
        _curve(axes, place, model, list(own["epsilon"]), points)
    attack = curves["attack"].iloc[0]
    axes.set(xlabel="epsilon", ylabel="robust accuracy (%)", ylim=(0, 100), title=f"{attack}: {suite.suite}")
    _legend(axes, len(_plotted_models(board)))
    return figure


def _pgd_steps(attack: str) -> int | None:
    """The steps of a PGD that differs from others in these alone, by its name."""
    name, _, steps = attack.rpartition("-")
    return int(steps) if name == "pgd" and steps.isdecimal() else None


def _transfer(suite: SuiteScores) -> Figure | None:
    """Robust accuracy under examples crafted on the row's model, judged on the column's. None where nothing crossed."""
    crossed = suite.scores[suite.scores["source_model"] != ""]
    if crossed.empty:
        return None
    attack = str(crossed["attack"].iloc[0])
    targets = list(dict.fromkeys(suite.scores["model"]))
    there = set(crossed[crossed["attack"] == attack]["source_model"])
    sources = [*(model for model in targets if model in there), *sorted(there - set(targets))]
    scores = suite.scores[suite.scores["attack"] == attack]
    source = scores["source_model"].where(scores["source_model"] != "", scores["model"])
    crossed = scores.assign(source=source).pivot(index="source", columns="model", values="robust_acc")
    values = crossed.reindex(index=sources, columns=targets).to_numpy(float)
    figure, axes = _figure(2.2 + 0.42 * len(targets), 1.9 + 0.42 * len(sources))
    _heat(figure, axes, values, sources, targets)
    axes.set(xlabel="judged on", ylabel="crafted on", title=f"{attack}, robust accuracy (%): {suite.suite}")
    return figure


def _classes(suite: SuiteScores, board: pd.DataFrame) -> Figure:
    """The worst case of each model, class by class."""
    distinct = {entry.images: judged for entry, judged in zip(suite.entries, suite.judged, strict=True)}.values()
    labels = {int(i): int(y) for judged in distinct for i, y in zip(judged.index, judged.label, strict=True)}
    classes = sorted(set(labels.values()))
    models = list(board["model"])
    values = np.full((len(models), len(classes)), np.nan)
    for row, model in enumerate(models):
        own = np.array([labels[int(image)] for image in suite.shared[model]])
        for column, label in enumerate(classes):
            if (own == label).any():
                values[row, column] = percent(suite.worst[model][own == label])
    figure, axes = _figure(2.4 + 0.45 * min(len(classes), 40), 1.6 + 0.26 * len(models))
    _heat(figure, axes, values, models, [str(label) for label in classes])
    axes.set(xlabel="class", title=f"Worst case by class (%): {suite.suite}")
    return figure


def _heat(figure: Figure, axes: Axes, values: NDArray[Any], rows: Sequence[str], columns: Sequence[str]) -> None:
    """A map with its numbers in it; cividis is even for the colour-blind and in grey."""
    image = axes.imshow(values, vmin=0, vmax=100, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    if values.size <= 600:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = "white" if value < 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes)


def _curve(axes: Axes, place: int, name: str, x: Sequence[float], points: Sequence[tuple[float, float, float]]) -> None:
    """Accuracies with their intervals as a band."""
    if not points:
        return
    value, low, high = (np.array(column) for column in zip(*points, strict=True))
    style = _style(place)
    axes.plot(x, value, **style, linewidth=1.2, label=name)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)


def _style(place: int) -> dict[str, Any]:
    """Colour and marker of the model at a place; no two of the first 70 look the same."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 5,
    }


def _legend(axes: Axes, count: int) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, ncols=1 + count // 34, frameon=False)


def _plotted_models(board: pd.DataFrame) -> list[str]:
    models = list(board["model"])
    return models if len(models) <= SHOWN else [*models[: SHOWN - 1], models[-1]]


def _interval(flags: NDArray[np.bool_]) -> tuple[float, float]:
    return wilson(int(flags.sum()), len(flags))
