"""Which drops the gate can detect: the smallest that it fails with a stated probability, by its own test."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from benchmark.gate.rules import Rules, most_allowed, schedule
from benchmark.gate.words import points
from benchmark.stats.sequential import bet_p, rejected_from
from benchmark.stats.shares import Bools

POWERS = (0.8, 0.95)
RUNS = 500
"""Simulated for each drop: a standard error of 1.8 points at 80%, and of 1.0 at 95%."""
TOGETHER = 100
"""Runs simulated at a time."""
RETRAINED = 0.08
"""The share of images on which two trainings of a digits model differ; docs/gate.md has where that is measured."""
STEPS = 10
"""Drops tried in a point of robust accuracy."""

Drops = Sequence[float | None]


def detectable(n: int, rules: Rules, *, questions: int, churn: float) -> Drops:
    """The smallest drops in points that the gate fails with the probabilities of `POWERS`.

    A drop is what is to be expected of each image; the images of the baseline are a sample that may show more or less.

    Args:
        questions: of the run, in each of which images may have changed.
        churn: the share of images that change beside the drop, as often for the better as for the worse.

    Returns: one for each probability; None where no drop is detected as often.
    """
    found = functools.cache(lambda step: power(step / STEPS / 100, n, rules, questions=questions, churn=churn))
    steps = range(round(rules.tolerance * STEPS), int(100 * (1 - churn) * STEPS) + 1)
    smallest = [_smallest(steps, functools.partial(_reaches, found, wanted)) for wanted in POWERS]
    return [None if step is None else step / STEPS for step in smallest]


def as_record(drops: Drops, *, questions: int, churn: float) -> dict[str, float | None]:
    """What `detectable` came to, as a baseline has it: in points, by the probability."""
    by_power = {f"{100 * wanted:g}%": drop for wanted, drop in zip(POWERS, drops, strict=True)}
    return {"questions": questions, "churn": churn, **by_power}


def in_words(drops: Drops, churn: float) -> str:
    """The same for people."""
    sizes = [
        f"{'no drop' if drop is None else points(drop)} with probability {wanted:g}"
        for drop, wanted in zip(drops, POWERS, strict=True)
    ]
    where = f"where {100 * churn:g}% of the images change beside it" if churn else "where nothing else changes"
    return f"{', '.join(sizes)} {where}"


def power(drop: float, n: int, rules: Rules, *, questions: int, churn: float, runs: int = RUNS) -> float:
    """The share of simulated runs in which a model fails whose images become worse with probability `drop`.

    The runs are the same for every drop, down to what is drawn for an image.
    """
    failed = 0
    for first in range(0, runs, TOGETHER):
        drawn = [np.random.default_rng([n, run]).random(n) for run in range(first, min(first + TOGETHER, runs))]
        worse, better = np.stack(drawn) < drop + churn / 2, np.stack(drawn) > 1 - churn / 2
        failed += int(fails(worse, better, n, rules, questions=questions).sum())
    return failed / runs


def fails(worse: Bools, better: Bools, n: int, rules: Rules, *, questions: int) -> Bools:
    """(R,) whether a model fails, by the rules of `decide` for the smallest p-value of all questions.

    Args:
        worse, better: (R, n) bool, in the order in which images come in.
    """
    counts = schedule(n, rules)
    lost, changed = (bits.cumsum(1)[:, np.array(counts) - 1] for bits in (worse, worse | better))
    trials, same = np.unique(changed, axis=0, return_inverse=True)
    level = rules.alpha / questions
    critical = np.stack([rejected_from(row, counts, n, 0.5, level=level) for row in trials.tolist()])[same.ravel()]
    rejected = np.logical_or.accumulate(lost >= critical, axis=1)
    most, signed = most_allowed(n, rules.tolerance / 100), worse.astype(float) - better
    tolerated, feared = bet_p(-signed, n, -most), bet_p(signed, n, most + 1)
    failed, is_open = np.zeros(len(worse), np.bool_), rejected[:, -1].copy()
    for look, count in enumerate(counts[:-1]):
        drop = (2 * lost[:, look] - changed[:, look]) / count
        is_worse = (questions * tolerated[:, count] <= rules.alpha) & (drop > rules.tolerance / 100)
        failed |= is_open & rejected[:, look] & is_worse
        is_open &= ~failed & (feared[:, count] > rules.miss)
    fails_at_the_end: Bools = failed | (is_open & (2 * lost[:, -1] - changed[:, -1] > most))
    return fails_at_the_end


def _reaches(found: Callable[[int], float], wanted: float, step: int) -> bool:
    return found(step) >= wanted


def _smallest(steps: range, holds: Callable[[int], bool]) -> int | None:
    """The first of some numbers from which on a condition holds, found by doubling and halving; None for none."""
    low, width = steps.start - 1, STEPS
    while not holds(high := min(low + width, steps.stop - 1)):
        if high == steps.stop - 1:
            return None
        low, width = high, 2 * width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
