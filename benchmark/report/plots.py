"""Pictures of a suite's verdicts, as PNG and SVG. The same verdicts (and matplotlib) give the same bytes.

Names stand beside what they name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmark.report.certified import radius_table
from benchmark.report.figures import COLOURS, STYLE, new_figure, save_figure, series_style
from benchmark.report.labels import label_column
from benchmark.report.queries import budget_of, counted, robust_at
from benchmark.report.score import Judged, SuiteScores, common_images
from benchmark.stats.shares import percent, wilson
from benchmark.store.certificates import Certified
from benchmark.store.shown import ShownCase

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
            "queries": _queries(suite, board),
            "transfer": _transfer(suite),
            "classes": _classes(suite, board),
            "certified": _certified(radius_table(suite.certified), suite.suite),
        }
        drawn = {name: figure for name, figure in figures.items() if figure is not None}
        for name, figure in drawn.items():
            save_figure(figure, folder / name)
    for path in folder.glob("*.*"):
        if path.stem not in drawn and path.suffix in (".png", ".svg"):
            path.unlink()
    return list(drawn)


def write_certified_picture(certified: Sequence[Certified], suite: str, folder: Path) -> None:
    """Draw smoothing's certified accuracy alone, of a suite of which nothing was attacked.

    Args:
        folder: the pictures' own; nothing is drawn where nothing was certified by smoothing.
    """
    with matplotlib.rc_context(STYLE):
        figure = _certified(radius_table(certified), suite)
        if figure is not None:
            save_figure(figure, folder / "certified")


def _trade_off(board: pd.DataFrame, suite: SuiteScores) -> Figure:
    """Clean against worst-case accuracy, a point a model, both with their intervals; where most crowd, once more."""
    crowd = _crowd(board)
    is_split = 1 < crowd.sum() < len(board)
    figure = Figure(figsize=(10 if is_split else 6.5, 5.2))
    panels = list(figure.subplots(1, 2 if is_split else 1, squeeze=False)[0])
    for axes in panels:
        _points(axes, board, suite)
    if is_split:
        near = board[crowd]
        panels[1].set_xlim(near["clean"].min() - 0.5, near["clean"].max() + 0.5)
        panels[1].set_ylim(near["ci_low"].min() - 1, near["ci_high"].max() + 1)
        panels[1].set(xlabel="clean accuracy (%)", title=f"the {crowd.sum()} that crowd")
        panels[0].indicate_inset_zoom(panels[1], edgecolor="#999999")
        _label(panels[1], near)
    _label(panels[0], board[~crowd] if is_split else board)
    panels[0].set(
        xlabel="clean accuracy (%)", ylabel="worst case over all attacks (%)", title=f"Trade-off: {suite.suite}"
    )
    return figure


def _crowd(board: pd.DataFrame) -> NDArray[np.bool_]:
    """(N,): models inside of Tukey's fences, 1.5 interquartile ranges from the quartiles, of both accuracies."""
    inside = np.ones(len(board), dtype=np.bool_)
    for name in ("clean", "worst case"):
        first, third = board[name].quantile([0.25, 0.75])
        inside &= board[name].between(first - 1.5 * (third - first), third + 1.5 * (third - first)).to_numpy()
    return inside


def _points(axes: Axes, board: pd.DataFrame, suite: SuiteScores) -> None:
    for line in board.to_dict("records"):
        n = max(entry.n for entry in suite.entries if entry.model == line["model"])
        low, high = wilson(round(line["clean"] * n / 100), n)
        axes.errorbar(
            line["clean"],
            line["worst case"],
            xerr=[[line["clean"] - low], [high - line["clean"]]],
            yerr=[[line["worst case"] - line["ci_low"]], [line["ci_high"] - line["worst case"]]],
            color=COLOURS[0],
            marker="o",
            markersize=4,
            linestyle="none",
            elinewidth=0.6,
        )


def _label(axes: Axes, board: pd.DataFrame) -> None:
    points = list(zip(board["clean"], board["worst case"], strict=True))
    label_column(axes, list(board["model"]), points, ["black"] * len(board))


def _steps(suite: SuiteScores, board: pd.DataFrame) -> Figure | None:
    """What PGD leaves above what its most steps leave, on the same images: does it converge?

    None where there are not two step counts.
    """
    curves: dict[str, dict[int, Judged]] = {}
    for entry, judged in zip(suite.entries, suite.judged, strict=True):
        steps = _pgd_steps(entry.attack)
        if steps and not entry.source_model:
            curves.setdefault(entry.model, {})[steps] = judged
    ticks = sorted({steps for points in curves.values() for steps in points})
    if len(ticks) < 2:
        return None
    figure, axes = new_figure(7, 4.6)
    names, ends, colours = [], [], []
    for place, model in enumerate(_plotted_models(board)):
        points = curves.get(model, {})
        if len(points) < 2:
            continue
        images, most = common_images(list(points.values())), max(points)
        left = {steps: percent(points[steps].on(images)) for steps in sorted(points)}
        above = [left[steps] - left[most] for steps in left]
        axes.plot(list(left), above, **series_style(place), linewidth=1.2)
        names.append(f"{model} ({left[most]:.1f})")
        ends.append((min(left), above[0]))
        colours.append(series_style(place)["color"])
    axes.set(
        xscale="log",
        xlabel="steps of PGD",
        ylabel="points above what the most steps leave (in brackets)",
        title=f"Does PGD converge? {suite.suite}",
    )
    axes.set_xticks(ticks, [str(steps) for steps in ticks])
    axes.minorticks_off()
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    label_column(axes, names, ends, colours, left=True)
    return figure


def _epsilons(suite: SuiteScores, board: pd.DataFrame, curves: pd.DataFrame) -> Figure | None:
    """Robust accuracy against epsilon. None where there are not two."""
    if curves.empty:
        return None
    figure, axes = new_figure(7, 4.6)
    drawn = {place: model for place, model in enumerate(_plotted_models(board)) if model in set(curves["model"])}
    ends = []
    for place, model in drawn.items():
        own = curves[curves["model"] == model]
        points = list(zip(own["robust_acc"], own["ci_low"], own["ci_high"], strict=True))
        _curve(axes, place, list(own["epsilon"]), points)
        ends.append((own["epsilon"].iloc[-1], own["robust_acc"].iloc[-1]))
    attack = curves["attack"].iloc[0]
    axes.set(xlabel="epsilon", ylabel="robust accuracy (%)", ylim=(0, 100), title=f"{attack}: {suite.suite}")
    label_column(axes, list(drawn.values()), ends, [series_style(place)["color"] for place in drawn])
    return figure


def _certified(radii: pd.DataFrame, suite: str) -> Figure | None:
    """Certified accuracy of smoothed classifiers against the radius. None where there are none."""
    if radii.empty:
        return None
    figure, axes = new_figure(6, 4.2)
    noises = radii["settings"].str.partition(" ")  # sigma, and the draws that mostly are the same
    is_alike = noises[2].nunique() == 1
    for place, (model, own) in enumerate(radii.groupby("model", sort=False)):
        points = list(zip(own["certified_acc"], own["ci_low"], own["ci_high"], strict=True))
        settings = (noises[0] if is_alike else radii["settings"]).loc[own.index[0]]
        _curve(axes, place, list(own["radius"]), points, marker="", label=f"{model}, {settings}")
    title = f"Smoothing: {suite}" + (f", {noises[2].iloc[0]}" if is_alike else "")
    axes.set(xlabel="L2 radius", ylabel="certified accuracy (%)", ylim=(0, 100), title=title)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _queries(suite: SuiteScores, board: pd.DataFrame) -> Figure | None:
    """Robust accuracy against queries an image, a panel an attack. None where no queries are stored."""
    panels: dict[str, dict[str, tuple[ShownCase, Judged]]] = {}
    for case, judged in counted(suite):
        panels.setdefault(case.attack, {})[case.model] = case, judged
    if not panels:
        return None
    figure = Figure(figsize=(4.6 * len(panels), 4.2))
    drawn = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (attack, models) in zip(drawn, panels.items(), strict=True):
        names, ends, colours = [], [], []
        for place, model in enumerate(_plotted_models(board)):
            if model not in models:
                continue
            case, judged = models[model]
            assert judged.queries is not None
            broken = judged.queries[judged.correct & ~judged.robust]
            last = budget_of(case, judged)
            last = max(int(broken.max()) if len(broken) else 1, 1) if np.isinf(last) else int(last)
            at = np.unique([*broken[broken <= last], 1, last])
            left = [percent(robust_at(judged, int(queries))) for queries in at]
            colour = COLOURS[place % len(COLOURS)]
            axes.step(at, left, where="post", color=colour, linewidth=1.2)
            names.append(model)
            ends.append((last, left[-1]))
            colours.append(colour)
        axes.set(xscale="log", ylim=(0, 100), xlabel="queries an image", title=f"{attack}: {suite.suite}")
        label_column(axes, names, ends, colours)
    drawn[0].set_ylabel("robust accuracy (%)")
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
    figure, axes = new_figure(2.2 + 0.42 * len(targets), 1.9 + 0.42 * len(sources))
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
    figure, axes = new_figure(2.4 + 0.45 * min(len(classes), 40), 1.6 + 0.26 * len(models))
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


def _curve(
    axes: Axes, place: int, x: Sequence[float], points: Sequence[tuple[float, float, float]], **other: str
) -> None:
    """Accuracies with their intervals as a band; other: of the line's style."""
    value, low, high = (np.array(column) for column in zip(*points, strict=True))
    style = {**series_style(place), **other}
    axes.plot(x, value, **style, linewidth=1.2)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)


def _plotted_models(board: pd.DataFrame) -> list[str]:
    models = list(board["model"])
    return models if len(models) <= SHOWN else [*models[: SHOWN - 1], models[-1]]
