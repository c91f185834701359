"""How often the gate errs, by simulation from stored verdicts: false alarms, power, and how much it attacks.

python tests/programs/gate_simulation.py --baseline results/digits/baseline.json [--runs 1000] [--name docs/gate-power]
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.gate.baseline import read_baseline
from benchmark.gate.question import Kind as Asked
from benchmark.gate.question import Outcome, Question
from benchmark.gate.rules import Answer, Evidence, Rules, against_baseline, against_canary, decide, schedule
from benchmark.report.tables import write_csv
from benchmark.stats.shares import Bools, wilson

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
        others, canaries: of the same run, models that have not become worse, and canaries of an unchanged attack.
    """

    model: str
    n: int
    drop: float
    tolerance: float = 1.0
    others: int = 0
    canaries: int = 0


@click.command()
@click.option("--baseline", type=click.Path(path_type=Path), required=True, metavar="FILE", help="whose verdicts")
@click.option("--runs", type=click.IntRange(1), default=1000, show_default=True, help="of each kind")
@click.option(
    "--name", type=click.Path(path_type=Path), default="docs/gate-power", show_default=True, help="of the files"
)
@click.option("--seed", default=0, show_default=True)
def main(*, baseline: Path, runs: int, name: Path, seed: int) -> None:
    """Simulate, write NAME.csv and NAME.svg, and print the table."""
    known = read_baseline(baseline)
    canaries = len(known.canaries)
    models = len(known.cases) - canaries
    pairs = alike([case.robust_any for case in known.cases.values()])
    kinds = [
        Kind(model, n, drop, tolerance, *beside)
        for tolerance, drops, beside in (
            (1.0, DROPS, (0, 0)),
            (1.0, DROPS, (models - 1, canaries)),
            (0.0, DROPS[:2], (0, 0)),
        )
        for model in ("unchanged", "retrained")
        for n in SIZES
        for drop in drops
    ]
    rows = []
    for kind in kinds:
        rows.append(simulate(kind, pairs, runs, seed=seed))
        print(rows[-1], file=sys.stderr)
    table = pd.DataFrame(rows)
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
    """A row: how often the model with the drop failed, how often any failed wrongly, and the share that was attacked.

    Each run draws n images, with replacement where the baseline has fewer, and a pair of models for each question. For
    a retrained model it tosses a coin for each image which of the two is the old one, so that neither is more robust
    and they differ on as many images as real ones do. Then so many robust images of the first question's new model are
    broken as the drop says. A failure is wrong where the model has no drop but by the coins, or one on all images that
    is tolerated.
    """
    rules = Rules(tolerance=kind.tolerance)
    draws = np.random.default_rng([seed, kind.n, int(10 * kind.drop), kind.model == "retrained", kind.others])
    failed, wrong, within, attacked, differ = 0, 0, 0, 0.0, 0.0
    size = len(pairs[0][0])
    for _ in range(runs):
        images = draws.permutation(size) if kind.n == size else draws.integers(size, size=kind.n)
        chosen = [pairs[int(draws.integers(len(pairs)))] for _ in range(1 + kind.others + kind.canaries)]
        told = [_retold(one[images], other[images], kind.model, draws) for one, other in chosen[kind.canaries :]]
        canaries = [one[images] for one, _ in chosen[: kind.canaries]]
        before, now = told[0]
        standing = draws.permutation(np.flatnonzero(now & before))
        now[standing[: round(kind.drop * kind.n / 100)]] = False
        answers = _run(told, canaries, rules)
        states = [answer.outcome is Outcome.FAIL for answer in answers]
        is_within = int(before.sum()) - int(now.sum()) <= kind.tolerance * kind.n / 100 + 1e-9
        failed += states[0]
        wrong += any(states[1:]) or (states[0] and (is_within or kind.drop == 0))
        within += is_within
        attacked += sum(answer.seen for answer in answers) / len(answers) / kind.n
        differ += float((before != now).mean())
    return {
        "model": kind.model,
        "images": kind.n,
        "questions": 1 + kind.others + kind.canaries,
        "tolerance": kind.tolerance,
        "drop": kind.drop,
        "runs": runs,
        "differ %": 100 * differ / runs,
        "within %": 100 * within / runs,
        "failed %": 100 * failed / runs,
        "low": wilson(failed, runs)[0],
        "high": wilson(failed, runs)[1],
        "wrong %": 100 * wrong / runs,
        "at most": wilson(wrong, runs)[1],
        "attacked %": 100 * attacked / runs,
    }


def _retold(one: Bools, other: Bools, model: str, draws: np.random.Generator) -> tuple[Bools, Bools]:
    """Old and new verdicts of a model that did not become worse; the order of images is random already."""
    if model == "unchanged":
        return one, one.copy()
    coin = draws.random(len(one)) < 0.5
    return np.where(coin, one, other), np.where(coin, other, one)


def _run(models: Sequence[tuple[Bools, Bools]], canaries: Sequence[Bools], rules: Rules) -> list[Answer]:
    """What the gate decides of models, by old and new verdicts in the order of the images, and of canaries."""
    n = len(models[0][0])
    evidence: dict[Question, Evidence] = {}
    answers: dict[Question, Answer] = {}
    for count in schedule(n, rules):
        decided = {question: answer for question, answer in answers.items() if answer.outcome is not Outcome.OPEN}
        for number, (before, now) in enumerate(models):
            question = Question(Asked.REGRESSION, str(number))
            if question not in decided:
                evidence[question] = against_baseline(before[:count], now[:count], rules)
        for number, robust in enumerate(canaries):
            question = Question(Asked.CANARY, str(number))
            if question not in decided:
                evidence[question] = against_canary(robust[:count], robust[:count])
        answers = decide(evidence, decided, n, rules, largest=rules.alpha)
        if all(answer.outcome is not Outcome.OPEN for answer in answers.values()):
            break
    return list(answers.values())


def _draw(table: pd.DataFrame, path: Path) -> None:
    """Over the drop: how often the gate fails, a panel for each number of questions, and how much it attacks."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    counts = sorted(set(table["questions"]))
    *panels, work = figure.subplots(1, len(counts) + 1)
    for count, panel in zip(counts, panels, strict=True):
        of_count = table[table["questions"] == count]
        for label, style, rows in _curves(of_count):
            errors = [rows["failed %"] - rows["low"], rows["high"] - rows["failed %"]]
            panel.errorbar(rows["drop"], rows["failed %"], yerr=errors, label=label, capsize=2, **style)
        panel.axhline(100 * Rules().alpha, color="grey", linewidth=0.8)
        panel.axvline(Rules().tolerance, color="grey", linewidth=0.8, linestyle=":")
        title = "one question" if count == 1 else f"among {count} questions"
        panel.set(xlabel="drop of robust accuracy, points", ylabel="the model with the drop fails, %", title=title)
    for label, style, rows in _curves(table[table["questions"] == counts[0]]):
        work.plot(rows["drop"], rows["attacked %"], label=label, **style)
    work.set(xlabel="drop of robust accuracy, points", ylabel="images attacked, %", ylim=(0, None), title="work")
    work.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _curves(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any], pd.DataFrame]]:
    """A label, a style and the rows of each curve."""
    markers = dict(zip(map(str, SIZES), "os^", strict=True))
    for (model, n), rows in table.groupby(["model", "images"], sort=False):
        yield (
            f"{model}, {n} images",
            {"linestyle": "-" if model == "unchanged" else "--", "marker": markers[str(n)]},
            rows,
        )


if __name__ == "__main__":
    main()
