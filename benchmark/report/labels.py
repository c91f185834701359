"""Names beside points and curves: in a column, in the order of the points, none over another, each with a thin line."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

HEIGHT = 0.034
"""Of a name, as a share of the height of a picture of 4.6 inches."""
LINE = {"arrowstyle": "-", "linewidth": 0.4, "color": "#999999", "shrinkA": 0, "shrinkB": 0}


def label_column(
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    colours: Sequence[str],
    *,
    left: bool = False,
) -> None:
    """Write names right (or left) of the axes; their limits must be final.

    Args:
        points: in data coordinates, one a name.
    """
    height = HEIGHT * 4.6 / axes.figure.get_figheight()  # type: ignore[union-attr]
    lowest, highest = axes.get_ylim()
    wanted = np.array([(y - lowest) / (highest - lowest) for _, y in points])
    for name, point, place, colour in zip(names, points, spread(wanted, height), colours, strict=True):
        axes.annotate(
            name,
            xy=point,
            xytext=(-0.04 if left else 1.04, place),
            textcoords="axes fraction",
            ha="right" if left else "left",
            va="center",
            fontsize=7,
            color=colour,
            arrowprops=LINE,
        )


def spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Places near those wanted, in the same order, a gap apart at least, around the middle of those that crowd.

    Args:
        wanted: (N,) in any order.
    """
    order = np.argsort(wanted, kind="stable")
    groups: list[tuple[float, int]] = []  # the middle of a run of names, and how many it has
    for place in wanted[order]:
        groups.append((float(place), 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (one, n), (other, m) = groups.pop(), groups.pop()
            groups.append(((one * n + other * m) / (n + m), n + m))
    placed = [middle + gap * (k - (n - 1) / 2) for middle, n in groups for k in range(n)]
    places = np.empty(len(wanted))
    places[order] = placed
    return places
