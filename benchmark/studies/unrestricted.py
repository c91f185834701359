"""The two-class warm-up of the Unrestricted Adversarial Examples challenge: sixes and sevens, moved and changed."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import foolbox
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from attacks import spatial_search, spsa
from attacks.draws import Draws
from attacks.generators import seeded
from attacks.loop import run_steps, take
from attacks.losses import logit_margin
from attacks.oracle import CountingClassifier, Oracle
from attacks.query_budget import BudgetSpentError, QueryBudget
from attacks.spatial import transform
from attacks.spec import Recurrence
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split, balanced_subset
from benchmark.report.figures import COLOURS, new_figure
from benchmark.stats.coverage import accuracy_at_coverage
from benchmark.stats.shares import percent
from benchmark.studies.fitting import fit
from benchmark.studies.moved_trades import moved_trades
from benchmark.studies.points import chance
from benchmark.studies.study import Comparison, Inputs, StudyResult
from benchmark.studies.two_digits import two_digits
from model_zoo.architectures.registry import build
from model_zoo.defenses.registry import defense_spec
from model_zoo.training.recipe import Recipe

DIGITS = (6, 7)
NETWORK = "strided-cnn"
COVERAGE = 0.8
MOVES = ThreatModel("spatial-10deg", 10.0)
PIXELS, L2 = ThreatModel("Linf", 0.3), ThreatModel("L2", 4.0)
SHIFTS, ROTATIONS = 5, 11
SPSA_QUERIES, SPSA_WIDTH, SPSA_STEP = 33, 0.01, 0.01 / 0.3
"""A step asks about 16 pairs of points and the new one."""
MOVED_WARM_UP = 0.75
"""The share of the training on moved images in which what it is trained against grows."""
DECIDED = 1.0
"""SPSA leaves an image whose wrong logit is so far above the right one."""
MOVE_STREAM = 8
SOURCE = "Brown et al. 2018; README of google/unrestricted-adversarial-examples"
PUBLISHED = {
    ("natural", "clean"): 100.0,
    ("natural", "spatial grid"): 0.0,
    ("natural", "moved, then SPSA"): 0.0,
    ("natural", "moved, then boundary"): 0.0,
    ("madry", "clean"): 100.0,
    ("madry", "spatial grid"): 0.0,
    ("madry", "moved, then SPSA"): 19.6,
    ("madry", "moved, then boundary"): 0.0,
}
"""At 80% coverage. The challenge's program moves images at random before SPSA and the boundary attack."""
OTHER = "another network and training, no check that a moved digit stays in the picture"
Row = dict[str, Any]


class TwoLogits(nn.Module):
    """A network of ten digits that is asked about two of them: (N, 1, 28, 28) to (N, 2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits[:, list(DIGITS)]


def moved_at_random(x: Tensor, draws: Draws) -> Tensor:
    """(N, C, H, W) images, each rotated and shifted by a draw of its own within `MOVES`."""
    limits = x.new_tensor([MOVES.degrees, MOVES.epsilon, MOVES.epsilon])
    return transform(x, (2 * draws.uniform((3,), stream=MOVE_STREAM) - 1) * limits)


MOVED = moved_trades(MOVES, PIXELS, beta=1.0, tried=4)
DEFENSES = (defense_spec("natural"), defense_spec("madry"), MOVED)


def by_grid(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    """(N, C, H, W) each image moved to where its logit margin is least, on a grid of 5 x 5 shifts and 11 rotations."""
    state_of = Recurrence(spatial_search.init, spatial_search.grid_step)
    params = {"iterations": ROTATIONS, "shifts": SHIFTS}
    oracle = Oracle(model, MOVES)
    found = run_steps(state_of, oracle, x, y, draws, steps=ROTATIONS, init_params={}, step_params=params)
    return transform(x, found)


def by_spsa(model: nn.Module, x: Tensor, y: Tensor, draws: Draws, *, steps: int) -> Tensor:
    """(N, C, H, W) SPSA's points: its last, or the first whose wrong logit leads by `DECIDED`."""
    oracle, found = Oracle(model, PIXELS), x.clone()
    state, rows = spsa.init(x, y, PIXELS, draws), torch.arange(len(x))
    for _ in range(steps):
        state = spsa.step(oracle, state, queries_per_step=SPSA_QUERIES, width=SPSA_WIDTH, rel_step_size=SPSA_STEP)
        found[rows] = state.x_adv
        with torch.no_grad():
            goes_on = (logit_margin(model(state.x_adv), state.y) > -DECIDED).nonzero().squeeze(1)
        if not len(goes_on):
            break
        state, rows = take(state, goes_on), rows[goes_on]
    return found


def by_boundary(model: nn.Module, x: Tensor, y: Tensor, starts: Tensor, *, seed: int, queries: int) -> Tensor:
    """(N, C, H, W) the nearest misclassified points that HopSkipJump finds on the boundary, projected onto the L2 ball.

    Args:
        starts: (N, C, H, W) images of the other class. Where the model takes one for the class y, or the image itself
            for the other class, the image stays as it is.
    """
    with torch.no_grad():
        rows = ((model(x).argmax(1) == y) & (model(starts).argmax(1) != y)).nonzero().squeeze(1)
    found = x.clone()
    if len(rows):
        budget = QueryBudget(CountingClassifier(model), x[rows], y[rows], L2, queries=queries)
        walk = foolbox.attacks.HopSkipJumpAttack(steps=queries, constraint="l2")
        asked, criterion = foolbox.PyTorchModel(budget, bounds=(0, 1)), foolbox.Misclassification(y[rows])
        with seeded(seed, "boundary"), suppress(BudgetSpentError):
            walk.run(asked, x[rows], criterion, starting_points=starts[rows])
        found[rows] = L2.project(budget.x_adv, x[rows])
    return found


def others(images: Split) -> Tensor:
    """(N, C, H, W) for each image one of the other class, of those given."""
    chosen = torch.empty_like(images.x)
    for label in DIGITS:
        own, other = (images.y == label).nonzero().squeeze(1), (images.y != label).nonzero().squeeze(1)
        chosen[own] = images.x[other[torch.arange(len(own)) % len(other)]]
    return chosen


def compute(
    inputs: Inputs, *, train: int, test: int, epochs: int, moved_epochs: int, queried: int, steps: int, queries: int
) -> StudyResult:
    """Accuracies at 80% and at full coverage of three trainings, when clean and under the attacks of the warm-up.

    Args:
        train, test: images of sixes and sevens. epochs: of each training but that on moved images, which has its own.
        queried: as many of the test images are attacked by SPSA, in so many steps, and by the boundary attack, by so
            many queries an image.

    Source: Brown et al., arXiv:1809.08352; google/unrestricted-adversarial-examples eval_kit.py and attacks.py.
    Deviations: a smaller network, fewer images, steps and queries; training on moved images stands for that of the
        challenge's TRADES model, which is of other images; the spatial grid adds no black border and drops no move
        that takes ink away; HopSkipJump in place of the boundary attack, which it improves on: by as few queries
        that one leaves most images of an undefended network standing.
    """
    usual = Recipe(NETWORK, epochs, 64, "adam", 1e-3, warm_up=1.0)
    moved = Recipe(
        NETWORK,
        moved_epochs,
        32,
        "adam",
        1e-3,
        warm_up=MOVED_WARM_UP * moved_epochs,
        inner_steps=5,
        inner_rel_step_size=0.4,
    )
    learnt, images = (two_digits(DIGITS, part, count, inputs) for part, count in (("train", train), ("test", test)))
    some = balanced_subset(images, min(queried, test), seed=inputs.seed)
    rows: list[Row] = []
    for defense in DEFENSES:
        recipe = moved if defense is MOVED else usual
        with seeded(inputs.seed, NETWORK):
            network = build(NETWORK, images.classes)
        model = TwoLogits(fit(network, learnt, defense, recipe, PIXELS, seed=inputs.seed)).eval().requires_grad_(False)
        rows += [
            {"model": defense.name, **row} for row in under_attack(model, images, some, inputs.seed, steps, queries)
        ]
    return StudyResult(pd.DataFrame(rows), _comparisons(rows), _sentence(rows))


def under_attack(model: nn.Module, images: Split, some: Split, seed: int, steps: int, queries: int) -> Sequence[Row]:
    """A row an attack: on how many images, accuracies in percent at 80% and at full coverage."""
    rows = []

    def add(name: str, x_adv: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            logits = model(x_adv)
        correct = (logits.argmax(1) == y).numpy()
        covered = accuracy_at_coverage(logits.amax(1).numpy(), correct, COVERAGE)
        rows.append({"attack": name, "n": len(y), "at_80": covered, "at_100": percent(correct)})

    y, draws = (images.y == DIGITS[1]).long(), Draws.start(seed, images.index)
    add("clean", images.x, y)
    add("moved at random", moved_at_random(images.x, draws), y)
    add("spatial grid", by_grid(model, images.x, y, draws), y)
    y, draws, starts = (some.y == DIGITS[1]).long(), Draws.start(seed, some.index), others(some)
    for before, x in (("", some.x), ("moved, then ", moved_at_random(some.x, draws))):
        add(f"{before}SPSA", by_spsa(model, x, y, draws, steps=steps), y)
        add(f"{before}boundary", by_boundary(model, x, y, starts, seed=seed, queries=queries), y)
    return rows


def _comparisons(rows: Sequence[Row]) -> list[Comparison]:
    found = {(row["model"], row["attack"]): row for row in rows}
    return [
        Comparison(
            f"{model}, {attack}: accuracy at 80% coverage (%)",
            published=value,
            measured=found[model, attack]["at_80"],
            within=100 * chance(value / 100, found[model, attack]["n"]),
            n=found[model, attack]["n"],
            source=SOURCE,
            why=OTHER,
        )
        for (model, attack), value in PUBLISHED.items()
    ]


def _sentence(rows: Sequence[Row]) -> str:
    def told(model: str) -> str:
        own = {row["attack"]: row["at_80"] for row in rows if row["model"] == model}
        names = ("clean", "spatial grid", "SPSA", "moved, then SPSA", "boundary", "moved, then boundary")
        return f"{model} " + ", ".join(f"{own[name]:.1f}" for name in names)

    return (
        "Accuracy in percent at 80% coverage when clean, under the spatial grid, under SPSA at the image and after a "
        "random move, and under HopSkipJump, for the boundary attack, at the image and after one: "
        + "; ".join(told(defense.name) for defense in DEFENSES)
        + "."
    )


def draw(table: pd.DataFrame) -> Figure:
    """Accuracy at 80% coverage, a group of bars an attack, a bar a model."""
    figure, axes = new_figure(8, 3.6)
    names = list(dict.fromkeys(table["attack"]))
    width = 0.8 / len(DEFENSES)
    for place, (model, rows) in enumerate(table.groupby("model", sort=False)):
        at = np.arange(len(names)) + (place - (len(DEFENSES) - 1) / 2) * width
        axes.bar(at, rows["at_80"], width, label=str(model), color=COLOURS[place])
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set(ylabel="accuracy at 80% coverage (%)", ylim=(0, 101))
    axes.legend(frameon=False, ncols=len(DEFENSES))
    return figure
