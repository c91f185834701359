"""How tight the bound behind TRADES is: on MNIST's ones and threes, and on a distribution that attains it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from attacks.api import attack
from attacks.draws import Draws
from attacks.generators import seeded
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.report.figures import series_style
from benchmark.studies.fitting import fit
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.two_digits import two_digits
from model_zoo.architectures.registry import build
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DefenseSpec
from model_zoo.training.recipe import Recipe

Row = dict[str, Any]
LAMBDAS = (2.0, 3.0, 4.0, 5.0)
PUBLISHED = {2.0: (99.43, 0.006708), 3.0: (99.41, 0.005914), 4.0: (99.37, 0.006757), 5.0: (99.34, 0.005860)}
"""By lambda: robust accuracy in %, and the right side of Theorem 3.1 minus the left."""
SOURCE = "Zhang et al. 2019, Table 3 (from memory, unverified)"
DELTAS = (0.2, 0.1, 0.05, 0.02)
THETA = 0.5
STEPS = 20


def score(logits: Tensor) -> Tensor:
    """(N,) f(x): the second of two logits minus the first; its sign is the class."""
    return logits[:, 1] - logits[:, 0]


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, lam: float) -> Tensor:
    """phi(y f(x)) + max phi(f(x') f(x) / lambda) with the hinge loss phi.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) of 0 and 1. lam: lambda.

    Returns: a scalar.
    Source: Zhang et al., arXiv:1901.08573, Equation 3 and Section 5.1.
    """
    with torch.no_grad():
        predicted = model(x).argmax(1)
    x_adv = ctx.craft(model, x, predicted, loss="margin", start="gaussian")  # the hinge loss falls with f(x') f(x)
    clean, adversarial = score(model(x)), score(model(x_adv))
    return (F.relu(1 - (2 * y - 1) * clean) + F.relu(1 - clean * adversarial / lam)).mean()


HINGE = DefenseSpec(
    "trades-hinge",
    batch_loss=batch_loss,
    model_name="trades-hinge",
    is_robust=True,
    paper="Zhang et al., arXiv:1901.08573",
    summary="TRADES of two classes by the hinge loss",
    params={"lam": 5.0},
)


def both_sides(model: nn.Module, images: Split, threat: ThreatModel, *, lam: float, seed: int) -> dict[str, float]:
    """Robust error, the surrogate's risk, and the mean of max phi(f(x') f(x) / lambda), as attacks find them.

    Source: Zhang et al., arXiv:1901.08573, Theorem 3.1; of the hinge loss psi is the identity.
    """
    shown = attack(model, images.x, images.y, "pgd-40", epsilon=threat.epsilon, seed=seed, index=images.index)
    with torch.no_grad():
        clean = score(model(images.x))
    ctx = TrainingContext(threat, Draws.start(seed, images.index, torch.zeros_like(images.index)), STEPS, 0.1)
    x_adv = ctx.craft(model, images.x, (clean > 0).long(), loss="margin", start="uniform")
    with torch.no_grad():
        unstable = F.relu(1 - clean * score(model(x_adv)) / lam)
    return {
        "natural_error": 1 - shown.clean_acc / 100,
        "robust_error": 1 - shown.robust_acc / 100,
        "surrogate_risk": float(F.relu(1 - (2 * images.y - 1) * clean).double().mean()),
        "instability": float(unstable.double().mean()),
    }


class Built(nn.Module):
    """f on the unit interval, by linear interpolation between knots: x (N, 1, 1, 1) to two logits."""

    def __init__(self, delta: float) -> None:
        super().__init__()
        self.register_buffer("at", torch.tensor([0.0, 0.3, 0.4, 0.6, 0.65, 1.0]))
        self.register_buffer("value", torch.tensor([-delta, -delta, 2.0, 1.0, -(delta**3), -(delta**3)]))

    def forward(self, x: Tensor) -> Tensor:
        at, value, place = self.get_buffer("at"), self.get_buffer("value"), x.flatten()
        right = torch.searchsorted(at, place.detach().contiguous()).clamp(1, len(at) - 1)
        share = (place - at[right - 1]) / (at[right] - at[right - 1])
        f = value[right - 1] + share * (value[right] - value[right - 1])
        return torch.stack([-f, f], 1) / 2


def built_images(n: int) -> Split:
    """n points: half at 0.1, where a share (1 + theta) / 2 has label 1 and f says 0; half at 0.6, all of label 1.

    At 0.6 the classifier is right, and its boundary is near. n is a multiple of 8.
    """
    x = torch.full((n, 1, 1, 1), 0.6)
    x[: n // 2] = 0.1
    y = torch.ones(n, dtype=torch.int64)
    y[: round(n / 2 * (1 - THETA) / 2)] = 0
    return Split("built", "test", x, y, torch.arange(n), 2)


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
