"""How tight the bound behind TRADES is: on MNIST's ones and threes, and on a distribution that attains it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from attacks.generators import seeded
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.report.figures import series_style
from benchmark.studies.fitting import fit
from benchmark.studies.hinge_trades import HINGE, THETA, Built, both_sides, built_images
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.two_digits import two_digits
from model_zoo.architectures.registry import build
from model_zoo.training.recipe import Recipe

Row = dict[str, Any]
LAMBDAS = (2.0, 3.0, 4.0, 5.0)
PUBLISHED = {2.0: (99.43, 0.006708), 3.0: (99.41, 0.005914), 4.0: (99.37, 0.006757), 5.0: (99.34, 0.005860)}
"""By lambda: robust accuracy in %, and the right side of Theorem 3.1 minus the left."""
SOURCE = "Zhang et al. 2019, Table 3 (from memory, unverified)"
DELTAS = (0.2, 0.1, 0.05, 0.02)


def ones_and_threes(part: str, count: int, inputs: Inputs) -> Split:
    """Images of MNIST's 1 (class 0) and 3 (class 1), a balanced subset."""
    chosen = two_digits((1, 3), part, count, inputs)
    return replace(chosen, y=(chosen.y == 3).long(), classes=2)


def compute(inputs: Inputs, *, train: int, test: int, epochs: int, epsilon: float) -> StudyResult:
    """Both sides of Theorem 3.1 for trained networks, and for the distribution of Theorem 3.2.

    Args:
        train, test: images of ones and threes. epochs: of each training. epsilon: of the Linf attack on MNIST.

    Source: Zhang et al., arXiv:1901.08573, Theorems 3.1 and 3.2 and Section 5.1.
    Deviations: a smaller network, fewer images and epochs; the least natural and surrogate risks are taken for 0 on
        MNIST, as in the paper.
    """
    rows: list[Row] = []
    recipe = Recipe("strided-cnn", epochs, 64, "adam", 1e-3, inner_steps=5, inner_rel_step_size=0.4)
    threat, images = ThreatModel("Linf", epsilon), ones_and_threes("test", test, inputs)
    learnt = ones_and_threes("train", train, inputs)
    for lam in LAMBDAS:
        with seeded(inputs.seed, "trades-bound"):
            network = build("strided-cnn", 2)
        fit(network, learnt, HINGE, recipe, threat, seed=inputs.seed, lam=lam)
        sides = both_sides(network, images, threat, lam=lam, seed=inputs.seed)
        rows.append(_row("MNIST 1 and 3", lam, sides, least=0.0, least_surrogate=0.0, n=len(images)))
    built = built_images(80)
    for delta in DELTAS:
        sides = both_sides(Built(delta).eval(), built, ThreatModel("Linf", 0.1), lam=delta**2, seed=inputs.seed)
        least = (1 - THETA) / 4
        rows.append(_row("built", delta, sides, least=least, least_surrogate=0.5 * (1 - THETA), n=len(built)))
    return StudyResult(pd.DataFrame(rows), _comparisons(rows), _sentence(rows))


def _row(kind: str, value: float, sides: dict[str, float], *, least: float, least_surrogate: float, n: int) -> Row:
    left = sides["robust_error"] - least
    right = sides["surrogate_risk"] - least_surrogate + sides["instability"]
    return {"kind": kind, "lambda_or_delta": value, **sides, "left": left, "right": right, "gap": right - left, "n": n}


def _comparisons(rows: Sequence[Row]) -> list[Comparison]:
    trained, built = ([row for row in rows if (row["kind"] == "built") == is_built] for is_built in (False, True))
    shown = [
        Comparison(
            "least gap between the sides",
            published=0.0,
            measured=min(row["gap"] for row in rows),
            relation=">=",
            within=1e-6,
            n=trained[0]["n"],
            source="Zhang et al. 2019, Theorem 3.1",
        ),
        Comparison(
            f"gap of the built distribution less its delta, {built[-1]['lambda_or_delta']:g}",
            published=0.0,
            measured=built[-1]["gap"] - built[-1]["lambda_or_delta"],
            relation="<=",
            n=built[-1]["n"],
            source="Zhang et al. 2019, Theorem 3.2: below every xi",
        ),
    ]
    for row in trained:
        accuracy, gap = PUBLISHED[row["lambda_or_delta"]]
        of = f"lambda {row['lambda_or_delta']:g}"
        why = "a smaller network, trained on fewer images for fewer epochs"
        measured = 100 * (1 - row["robust_error"])
        n = row["n"]
        shown.append(
            Comparison(
                f"robust accuracy (%), {of}",
                published=accuracy,
                measured=measured,
                within=1.0,
                n=n,
                source=SOURCE,
                why=why,
            )
        )
        shown.append(
            Comparison(f"gap, {of}", published=gap, measured=row["gap"], within=0.01, n=n, source=SOURCE, why=why)
        )
    return shown


def _sentence(rows: Sequence[Row]) -> str:
    trained = [row for row in rows if row["kind"] != "built"]
    low, high = (bound(row["gap"] for row in trained) for bound in (min, max))
    last = rows[-1]
    return (
        f"On MNIST's ones and threes the right side of Theorem 3.1 is {low:.4f} to {high:.4f} above the left; on the "
        f"built distribution both are {last['left']:.3f} but for {last['gap']:.4f} at delta "
        f"{last['lambda_or_delta']:g}."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Both sides against lambda, and against the delta of the built distribution."""
    figure = Figure(figsize=(9, 3.6))
    for axes, (kind, rows) in zip(figure.subplots(1, 2), table.groupby("kind", sort=False), strict=True):
        for place, side in enumerate(("right", "left")):
            axes.plot(rows["lambda_or_delta"], rows[side], label=f"{side} side", **series_style(place))
        axes.set(xlabel="delta" if kind == "built" else "lambda", title=str(kind), ylim=(0, None))
        axes.legend(frameon=False)
    return figure
