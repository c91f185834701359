"""What the gate found, in words: one finding a question."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.bench import Bench, Subject
from benchmark.compare import difference_interval, mcnemar
from benchmark.gate import Course
from benchmark.gate_rules import FAIL, OPEN, Rules, schedule
from benchmark.score import percent
from benchmark.sequential import spent
from benchmark.verdicts import Bools

VOID = "void"
MASKING = ("zero-gradients", "vanishing-gradients", "probabilities", "randomized", "dropout")
"""Caveats with which gradient attacks may be too weak."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Args:
        subject: a model or canary. kind: "regression", "threshold", "canary" or "sanity".
        outcome: "pass", "fail", "open" (the time was up) or "void" (the attack became weaker).
        words: why.
        seen: images that were attacked. before, now: robust accuracy on these, in percent.
        low, high: of now - before, in points: a 95% interval that is valid at every look. p: exact McNemar, two-sided.
    """

    subject: str
    kind: str
    outcome: str
    words: str
    seen: int = 0
    before: float | None = None
    now: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def sanity_failure(subject: str, words: str) -> Finding:
    """A model that is not worth attacking, or no longer to be trusted."""
    return Finding(subject, "sanity", FAIL, words)


def new_caveats(subject: Subject) -> Finding | None:
    """A model with a caveat that it had not before."""
    assert subject.before is not None
    new = [flag for flag in subject.flags if flag not in subject.before.flags]
    if not new:
        return None
    words = f"it has a caveat that it had not before: {', '.join(new)}"
    if set(new) & set(MASKING):
        words = f"its gradients are masked now ({', '.join(new)}): an attack by gradient that fails says nothing"
    return sanity_failure(subject.spec.name, words)


def findings(bench: Bench, subjects: Sequence[Subject], course: Course, rules: Rules) -> list[Finding]:
    """One for every question, in the order of the subjects."""
    by_name = {subject.spec.name: subject for subject in subjects}
    is_void = any(state == FAIL and question.startswith("canary ") for question, state in course.states.items())
    found = []
    for question in course.evidence:
        kind, _, name = question.partition(" ")
        outcome = course.states[question]
        outcome = VOID if is_void and (kind != "canary" or outcome == OPEN) else outcome
        found.append(_finding(bench, by_name[name], kind, outcome, course, rules))
    return found


def _finding(bench: Bench, subject: Subject, kind: str, outcome: str, course: Course, rules: Rules) -> Finding:
    assert subject.before is not None
    name, now = subject.spec.name, course.records[subject.spec.name].seen
    order = course.order[: len(now)]
    before = subject.before.robust_any[order]
    lost, won = int((before & ~now).sum()), int((~before & now).sum())
    low, high = difference_interval(lost, won, len(now), error=0.05 * _newly_spent(len(now), len(bench.split), rules))
    values = {"before": percent(before), "now": percent(now), "low": low, "high": high, "p": mcnemar(lost, won)}
    words = {
        "regression": lambda: _regression(bench, subject, outcome, values, rules),
        "threshold": lambda: _threshold(percent(now), outcome, rules),
        "canary": lambda: _canary(outcome, lost, won, before),
    }[kind]()
    if outcome == VOID:
        words = "says nothing: the attack became weaker"
    elif outcome == OPEN:
        words = f"undecided when the time was up: {values['now'] - values['before']:+.2f} points so far"
    return Finding(name, kind, outcome, words, len(now), **values)


def _threshold(now: float, outcome: str, rules: Rules) -> str:
    least = rules.min_robust or 0.0
    doubt = ", not significantly fewer" if outcome != FAIL and now < least else ""
    return f"{now:.2f}% robust on these images, {least:g}% are asked for{doubt}"


def _newly_spent(seen: int, n: int, rules: Rules) -> float:
    """The part of the error rate that belongs to the look at which so many images had come in."""
    counts = [0, *(count for count in schedule(n, rules) if count <= seen)]
    return spent(counts[-1] / n) - spent(counts[-2] / n)


def _regression(
    bench: Bench,
    subject: Subject,
    outcome: str,
    values: dict[str, float],
    rules: Rules,
) -> str:
    assert subject.before is not None
    change = values["now"] - values["before"]
    if outcome != FAIL:
        if values["low"] > 0:
            return "robust accuracy rose: update the baseline"
        significant = "significant " if -change > rules.tolerance else ""
        return f"no {significant}drop beyond {rules.tolerance:g} points"
    words = f"robust accuracy fell by {-change:.2f} points (95% interval {-values['high']:.2f} to {-values['low']:.2f})"
    was = subject.before.prediction == subject.before.label
    now = (subject.prediction == bench.split.y.to(subject.prediction.device)).cpu().numpy()
    if mcnemar(int((was & ~now).sum()), int((~was & now).sum())) <= rules.alpha and now.sum() < was.sum():
        words += f"; clean accuracy fell from {percent(was):.2f}% to {percent(now):.2f}%"
    if subject.before.entry["checkpoint_sha256"] == subject.spec.sha256:
        words += "; its weights are the recorded ones, so the attack is stronger now: update the baseline"
    return words


def _canary(outcome: str, lost: int, won: int, before: Bools) -> str:
    if outcome != FAIL:
        return "the attack is as strong as recorded"
    return (
        f"the attack became weaker: {won} of the {int((~before).sum())} images that it broke on this canary are left "
        f"standing now, {lost} others broken; whatever the models' numbers say, they are too high"
    )
