"""How often the gate errs, by simulation from stored verdicts: false alarms, power, and how much it attacks."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmark.baseline import read_baseline
from benchmark.cli import Shared
from benchmark.gate_rules import FAIL, OPEN, Rules, against_baseline, decide, schedule
from benchmark.score import wilson
from benchmark.tables import write_csv
from benchmark.verdicts import Bools

DROPS = (0.0, 1.0, 2.0, 5.0)
SIZES = (500, 1000, 10_000)
ALIKE = 2.0
"""Points of robust accuracy within which two models of the baseline are taken for one model trained twice."""


@dataclass(frozen=True)
class Kind:
    """What is simulated.

    Args:
        model: "unchanged": the old verdicts, but for the drop; "retrained": those of another, equally robust model.
        n: images. drop: points of robust accuracy. tolerance: as in `Rules`.
    """

    model: str
    n: int
    drop: float
    tolerance: float = 1.0


def gate_power(shared: Shared, *, baseline: Path, runs: int, name: Path) -> None:
    """Simulate, write NAME.csv and NAME.svg, and print the table."""
    pairs = alike([case.robust_any for case in read_baseline(baseline).cases.values()])
    kinds = [
        Kind(model, n, drop, tolerance)
        for tolerance, drops in ((1.0, DROPS), (0.0, DROPS[:2]))
        for model in ("unchanged", "retrained")
        for n in SIZES
        for drop in drops
    ]
    table = pd.DataFrame([simulate(kind, pairs, runs, seed=shared.seed) for kind in kinds])
    write_csv(name.with_suffix(".csv"), table.round(4))
    _draw(table[table["tolerance"] == Rules().tolerance], name.with_suffix(".svg"))
    print(table.to_markdown(index=False, floatfmt=".4g"))


def alike(verdicts: Sequence[Bools]) -> list[tuple[Bools, Bools]]:
    """Every two of some models that are nearly equally robust, and neither broken nor standing throughout."""
    partly = [robust for robust in verdicts if 0.1 < robust.mean() < 0.9]
    return [
        (one, other)
        for one, other in itertools.combinations(partly, 2)
        if abs(one.mean() - other.mean()) <= ALIKE / 100 and (one != other).any()
    ]


def simulate(kind: Kind, pairs: Sequence[tuple[Bools, Bools]], runs: int, *, seed: int) -> dict[str, object]:
    """A row: how often the gate failed, with a 95% interval, and the share of images that it attacked.

    Each run takes a pair of models and n images, drawn with replacement where the pair has fewer. For a retrained model
    it tosses a coin for each image which of the two is the old one, so that neither is more robust and they differ on
    as many images as real ones do. Then so many robust images of the new one are broken as the drop says.
    """
    rules = Rules(tolerance=kind.tolerance)
    draws = np.random.default_rng([seed, kind.n, int(10 * kind.drop), kind.model == "retrained"])
    failed, seen, differ = 0, 0, 0.0
    for _ in range(runs):
        one, other = pairs[int(draws.integers(len(pairs)))]
        images = draws.permutation(len(one)) if kind.n == len(one) else draws.integers(len(one), size=kind.n)
        one, other = one[images], other[images]
        coin = draws.random(kind.n) < 0.5
        before = np.where(coin, one, other) if kind.model == "retrained" else one
        now = np.where(coin, other, one) if kind.model == "retrained" else one.copy()
        standing = draws.permutation(np.flatnonzero(now & before))
        now[standing[: round(kind.drop * kind.n / 100)]] = False
        state, count = _run(before, now, draws.permutation(kind.n), rules)
        failed += state == FAIL
        seen += count
        differ += float((before != now).mean())
    low, high = wilson(failed, runs)
    return {
        "model": kind.model,
        "images": kind.n,
        "tolerance": kind.tolerance,
        "drop": kind.drop,
        "runs": runs,
        "differ %": 100 * differ / runs,
        "failed %": 100 * failed / runs,
        "low": low,
        "high": high,
        "attacked %": 100 * seen / runs / kind.n,
    }


def _run(before: Bools, now: Bools, order: NDArray[np.int64], rules: Rules) -> tuple[str, int]:
    """What the gate decides about one model, and after how many images."""
    state, count = {"q": OPEN}, 0
    for count in schedule(len(order), rules):
        seen = order[:count]
        state = decide({"q": against_baseline(before[seen], now[seen], rules)}, {}, len(order), rules)
        if state["q"] != OPEN:
            break
    return state["q"], count


def _draw(table: pd.DataFrame, path: Path) -> None:
    """Two panels over the drop: how often the gate fails, and how much it attacks."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (model, n), rows in table.groupby(["model", "images"], sort=False):
        n = int(str(n))
        style = {"linestyle": "-" if model == "unchanged" else "--", "marker": {500: "o", 1000: "s"}.get(n, "^")}
        label = f"{model}, {n} images"
        errors = [rows["failed %"] - rows["low"], rows["high"] - rows["failed %"]]
        left.errorbar(rows["drop"], rows["failed %"], yerr=errors, label=label, capsize=2, **style)
        right.plot(rows["drop"], rows["attacked %"], label=label, **style)
    left.axhline(100 * Rules().alpha, color="grey", linewidth=0.8)
    left.set(xlabel="drop of robust accuracy, points", ylabel="gate fails, %", title="false alarms (at 0) and power")
    right.set(xlabel="drop of robust accuracy, points", ylabel="images attacked, %", ylim=(0, None), title="work")
    right.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
