"""How all pictures look, and how they become files: the same figure (and matplotlib) gives the same bytes.

Colours are Okabe and Ito's, which the colour-blind can tell apart.
"""

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_zoo.files.atomic import atomic_write, file_of

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
"""For `matplotlib.rc_context`, in which figures are both made and saved."""
DPI = 150


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, with one pair of axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def series_style(place: int) -> dict[str, Any]:
    """Colour and marker of the series at a place; no two of the first 70 look the same."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 5,
    }


def save_figure(figure: Figure, stem: Path) -> None:
    """Write STEM.png and STEM.svg, without the date and the version of the program."""
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        atomic_write(file_of(stem, f".{suffix}"), buffer.getvalue())
