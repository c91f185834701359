"""What the gate concludes from verdicts, at stated error rates. Nothing here needs a model."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.gate.question import Outcome, Question
from benchmark.stats.sequential import excludes, holm, looks, sequential_p, soonest
from benchmark.stats.shares import Bools

ROUNDING = 0.002
"""How often another machine's rounding may save an image of a canary; results/evidence has how often it was seen to."""
WEAKENED = 0.005
"""The share of a canary's images, net, by which the attack may be weaker; whatever is tolerated in models."""


@dataclass(frozen=True)
class Rules:
    """What is tolerated, and how often the gate may be wrong.

    Args:
        tolerance: points of robust accuracy, on all images of the baseline, that a model may lose.
        alpha: the probability, in a run, that any model fails which did not become worse; and that any fails which lost
            no more than is tolerated.
        miss: the probability, for each question, of passing before the last image what all images would fail.
        min_robust: robust accuracy in percent that every model must have; None for no such threshold.
    """

    tolerance: float = 1.0
    alpha: float = 0.01
    miss: float = 0.05
    min_robust: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What the images so far say to one question, in the order in which they came in.

    Args:
        worse, better: (seen,) bool, the image speaks for a failure, or against one. With a baseline: robust then and
            broken now, and the reverse; an image that is as it was is neither. With a threshold: broken, and standing.
        among: (seen,) bool, the images that `worse` ones are counted among to tell whether they are chance.
        null: the probability with which one of those is worse where nothing has failed.
        allowed: the share of `worse` images minus that of `better` ones, of all images, up to which nothing has failed.
        is_strict: a failure takes evidence of more than `allowed` on all images, beside evidence of more than chance.
    """

    worse: Bools
    better: Bools
    among: Bools
    null: float
    allowed: float
    is_strict: bool = True

    @property
    def excess(self) -> float:
        """By how much the share of `worse` images exceeds that of `better` ones: for a baseline, the drop."""
        return float(self.worse.mean() - self.better.mean()) if len(self.worse) else 0.0


def against_baseline(before: Bools, now: Bools, rules: Rules) -> Evidence:
    """Has robust accuracy fallen? Where not, an image that changed did so for the worse with one half (McNemar)."""
    return Evidence(before & ~now, ~before & now, before ^ now, 0.5, rules.tolerance / 100)


def against_canary(before: Bools, now: Bools) -> Evidence:
    """Does the attack break less than it did? Weights and draws are the same, so next to nothing may change."""
    return Evidence(~before & now, before & ~now, np.ones_like(now), ROUNDING, WEAKENED, is_strict=False)


def against_threshold(now: Bools, threshold: float) -> Evidence:
    """Is robust accuracy below a threshold in percent?"""
    broken = 1 - threshold / 100
    return Evidence(~now, now, np.ones_like(now), broken, broken - threshold / 100)


def schedule(n: int, rules: Rules) -> Sequence[int]:
    """How many images have come in at each look; at one of them a model that has not changed at all is passed."""
    return _schedule(n, rules.tolerance, rules.miss)


@functools.lru_cache(maxsize=64)
def _schedule(n: int, tolerance: float, miss: float) -> Sequence[int]:
    return tuple(looks(n, soonest(n, most_allowed(n, tolerance / 100) + 1, miss)))


@dataclass(frozen=True)
class Answer:
    """What is known of a question at a look.

    Args:
        outcome: PASS, FAIL, INCONCLUSIVE or OPEN. seen: images at the look that decided it, or at the last one.
        p_fail: of "nothing failed", at whatever look it is read, by Holm's method for all questions of the run; the
            question fails at alpha.
        p_pass: of "all images together show more than is allowed", at whatever look it is read; it passes at `miss`.
    """

    outcome: Outcome
    seen: int
    p_fail: float
    p_pass: float


def chance(evidence: Evidence, n: int, rules: Rules, *, questions: int = 1, largest: float = 1.0) -> float:
    """The p-value, whatever look it is read at, of "the change is chance": a sequential exact binomial test.

    With a baseline it is McNemar's.

    Args:
        questions: of the run, which share alpha.
        largest: p-values above this need not be known, and are given as 1.
    """
    counts = [count for count in schedule(n, rules) if count <= len(evidence.worse)]
    successes = [int(evidence.worse[:count].sum()) for count in counts]
    trials = [int(evidence.among[:count].sum()) for count in counts]
    wanted = rules.alpha / questions
    return sequential_p(successes, trials, counts, n, evidence.null, wanted=wanted, largest=largest)


def tolerable(evidence: Evidence, n: int) -> float:
    """The p-value, whenever it is read, of "all n images together show no more than is allowed"; 0 once they do."""
    return excludes(-_signed(evidence), n, -most_allowed(n, evidence.allowed)) if evidence.is_strict else 0.0


def intolerable(evidence: Evidence, n: int) -> float:
    """The p-value, whenever it is read, of "all n images together show more than is allowed"; 0 once they cannot."""
    return excludes(_signed(evidence), n, most_allowed(n, evidence.allowed) + 1)


def _signed(evidence: Evidence) -> NDArray[np.float64]:
    return evidence.worse.astype(float) - evidence.better


def most_allowed(n: int, allowed: float) -> int:
    """The largest excess of worse images over better ones, of n, that is allowed."""
    return math.floor(n * allowed + 1e-9)


def decide(
    evidence: Mapping[Question, Evidence],
    decided: Mapping[Question, Answer],
    n: int,
    rules: Rules,
    *,
    largest: float = 1.0,
) -> dict[Question, Answer]:
    """The answers to all questions at a look.

    A question fails where two p-values are both at most alpha, each by Holm's method: `chance` and `tolerable`; and the
    images so far show more than is allowed. It passes where more than is allowed has become implausible, or all images
    have come in and do not show it. Where all have come in and show it, yet that may be chance, it is inconclusive; but
    a canary passes. What is decided stays so.

    A model that passed without one changed image could not have failed, so it does not count among the questions that
    Holm's method corrects `chance` for. Which images changed is what McNemar's test takes as given, so this is decided
    by nothing that the test looks at.

    Args:
        evidence: of those decided before, at the look that decided them.
        decided: the answers to these.
        n: how many images there are.
        largest: p-values above this need not be known, and are given as 1; at least alpha.

    Source: a failure takes both, an intersection-union test: Berger, Technometrics 24 (1982); questions that cannot be
        answered by a failure: Tarone, Biometrics 46 (1990).
    """
    counted = {q: one for q, one in evidence.items() if q not in decided or one.among.any()}
    m = len(evidence)
    p_chance = {q: chance(one, n, rules, questions=m, largest=largest) for q, one in counted.items()}
    by_chance = _holm(p_chance)
    tolerated = _holm({q: tolerable(one, n) if p_chance.get(q, 1.0) <= largest else 1.0 for q, one in evidence.items()})
    answers = dict(decided)
    for question, one in evidence.items():
        if question in decided:
            continue
        p_fail, p_pass = max(by_chance[question], tolerated[question]), intolerable(one, n)
        outcome, seen = Outcome.OPEN, len(one.worse)
        if p_fail <= rules.alpha and one.excess > one.allowed:
            outcome = Outcome.FAIL
        elif seen == n and one.is_strict and _signed(one).sum() > most_allowed(n, one.allowed):
            outcome = Outcome.INCONCLUSIVE
        elif seen == n or p_pass <= rules.miss:
            outcome = Outcome.PASS
        answers[question] = Answer(outcome, seen, p_fail, p_pass)
    return {question: answers[question] for question in evidence}


def _holm(p_values: Mapping[Question, float]) -> dict[Question, float]:
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))
