"""What the gate concludes from verdicts, at stated error rates. Nothing here needs a model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.sequential import excludes, holm, looks, sequential_p, soonest
from benchmark.verdicts import Bools

FAIL, PASS, OPEN = "fail", "pass", "open"
ROUNDING = 0.002
"""How often another machine's rounding may save an image of a canary; results/evidence has how often it was seen to."""


@dataclass(frozen=True)
class Rules:
    """What is tolerated, and how often the gate may be wrong.

    Args:
        tolerance: points of robust accuracy that may be lost.
        alpha: the probability of any false alarm in a run where nothing became worse.
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
        allowed: the share of `worse` images minus that of `better` ones up to which nothing has failed.
    """

    worse: Bools
    better: Bools
    among: Bools
    null: float
    allowed: float

    @property
    def excess(self) -> float:
        """By how much the share of `worse` images exceeds that of `better` ones: for a baseline, the drop."""
        return float(self.worse.mean() - self.better.mean()) if len(self.worse) else 0.0


def against_baseline(before: Bools, now: Bools, rules: Rules) -> Evidence:
    """Has robust accuracy fallen? Where not, an image that changed did so for the worse with one half (McNemar)."""
    return Evidence(before & ~now, ~before & now, before ^ now, 0.5, rules.tolerance / 100)


def against_canary(before: Bools, now: Bools, rules: Rules) -> Evidence:
    """Does the attack break less than it did? Weights and draws are the same, so next to nothing may change."""
    return Evidence(~before & now, before & ~now, np.ones_like(now), ROUNDING, rules.tolerance / 100)


def against_threshold(now: Bools, threshold: float) -> Evidence:
    """Is robust accuracy below a threshold in percent?"""
    broken = 1 - threshold / 100
    return Evidence(~now, now, np.ones_like(now), broken, broken - threshold / 100)


def schedule(n: int, rules: Rules) -> list[int]:
    """How many images have come in at each look; at one of them a model that has not changed at all is passed."""
    return looks(n, soonest(n, _too_many(n, rules.tolerance / 100), rules.miss))


def p_value(evidence: Evidence, n: int, rules: Rules) -> float:
    """Of "nothing became worse", whatever look it is read at (1 if above alpha); a sequential exact McNemar test."""
    counts = [count for count in schedule(n, rules) if count <= len(evidence.worse)]
    successes = [int(evidence.worse[:count].sum()) for count in counts]
    trials = [int(evidence.among[:count].sum()) for count in counts]
    return sequential_p(successes, trials, counts, n, evidence.null, largest=rules.alpha)


def cannot_fail(evidence: Evidence, n: int, miss: float) -> bool:
    """Whether it is excluded, but for a probability of `miss`, that all n images would show more than is allowed."""
    values = evidence.worse.astype(float) - evidence.better
    return excludes(values, n, _too_many(n, evidence.allowed)) <= miss


def _too_many(n: int, allowed: float) -> int:
    """The least excess of worse images over better ones, of n, that is more than the share that is allowed."""
    return math.floor(n * allowed + 1e-9) + 1


def decide(evidence: Mapping[str, Evidence], decided: Mapping[str, str], n: int, rules: Rules) -> dict[str, str]:
    """The state of every question after a look.

    A question fails where the change is significant (Holm's method over all questions of the run) and larger than what
    is allowed. It passes where that has become implausible, or all images have come in. What is decided stays so.

    Args:
        evidence: by question. decided: FAIL or PASS for those that were decided before.
        n: how many images there are.
    """
    adjusted = dict(zip(evidence, holm([p_value(one, n, rules) for one in evidence.values()]), strict=True))
    states = {}
    for question, one in evidence.items():
        if question in decided:
            states[question] = decided[question]
        elif adjusted[question] <= rules.alpha and one.excess > one.allowed:
            states[question] = FAIL
        elif len(one.worse) == n or cannot_fail(one, n, rules.miss):
            states[question] = PASS
        else:
            states[question] = OPEN
    return states
