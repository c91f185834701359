"""What the gate found, in words: one result a question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmark.gate.intervals import change_interval, robust_interval, saved_interval
from benchmark.gate.protocol import GateProtocol, Subject
from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.rules import Answer, Rules
from benchmark.gate.run import GateRun, attack_became_weaker
from benchmark.report.flags import flag_names, name_of
from benchmark.stats.shares import Bools, mcnemar, percent

MASKING = ("zero-gradients", "probabilities", "randomized", "dropout")
"""Caveats with which gradient attacks may be too weak."""


@dataclass(frozen=True)
class Result:
    """The answer to one question.

    Args:
        words: why it came out so.
        seen: images at the look that decided. before, now: robust accuracy on these, in percent; for a threshold
            `before` is the threshold.
        low, high: of now - before, in points: a 95% interval that is valid at every look; for a canary, of the images
            that the attack breaks no more.
        p_fail, p_pass: as in `Answer`.
    """

    question: Question
    outcome: Outcome
    words: str
    seen: int = 0
    before: float | None = None
    now: float | None = None
    low: float | None = None
    high: float | None = None
    p_fail: float | None = None
    p_pass: float | None = None


def sanity_failure(subject: str, words: str) -> Result:
    """A model that is not worth attacking, or no longer to be trusted."""
    return Result(Question(Kind.SANITY, subject), Outcome.FAIL, words)


def new_caveats(subject: Subject) -> Result | None:
    """A model with a caveat that it had not before."""
    assert subject.before is not None
    before = flag_names(subject.before.flags)
    new = [flag for flag in subject.flags if name_of(flag) not in before]
    if not new:
        return None
    words = f"it has a caveat that it had not before: {', '.join(new)}"
    if flag_names(new) & set(MASKING):
        words = f"its gradients are masked now ({', '.join(new)}): an attack by gradient that fails says nothing"
    return sanity_failure(subject.spec.name, words)


def results(protocol: GateProtocol, subjects: Sequence[Subject], run: GateRun, rules: Rules) -> list[Result]:
    """One for every question, in the order of the subjects."""
    by_name = {subject.spec.name: subject for subject in subjects}
    is_void = attack_became_weaker(run.answers)
    found = []
    for question, answer in run.answers.items():
        result = _result(protocol, by_name[question.subject], question, answer, run, rules)
        if is_void and (question.kind is not Kind.CANARY or answer.outcome is Outcome.OPEN):
            result = replace(result, outcome=Outcome.VOID, words="says nothing: the attack became weaker")
        found.append(result)
    return found


def _result(
    protocol: GateProtocol, subject: Subject, question: Question, answer: Answer, run: GateRun, rules: Rules
) -> Result:
    """What decided a question, and what was known then."""
    assert subject.before is not None
    n, questions = len(protocol.split), len(run.answers)
    now = run.records[question.subject].seen[: answer.seen]
    robust = subject.before.robust_any[run.order[: answer.seen]]
    before = percent(robust)
    if question.kind is Kind.THRESHOLD:
        before = rules.min_robust or 0.0
        low, high = (end - before for end in robust_interval(now, n, rules, questions=questions))
    else:
        interval = saved_interval if question.kind is Kind.CANARY else change_interval
        low, high = interval(robust, now, n, rules, questions=questions)
    numbers = {"before": before, "now": percent(now), "low": low, "high": high}
    if answer.outcome is Outcome.OPEN:
        words = f"undecided when the time was up: {percent(now) - before:+.2f} points so far"
    elif question.kind is Kind.THRESHOLD:
        words = _threshold(percent(now), answer.outcome, rules)
    elif question.kind is Kind.CANARY:
        words = _canary(answer.outcome, robust, now)
    else:
        words = _regression(protocol, subject, answer.outcome, numbers, rules)
    return Result(question, answer.outcome, words, answer.seen, **numbers, p_fail=answer.p_fail, p_pass=answer.p_pass)


def _threshold(now: float, outcome: Outcome, rules: Rules) -> str:
    least = rules.min_robust or 0.0
    evidence = ", not significantly fewer" if outcome is not Outcome.FAIL and now < least else ""
    return f"{now:.2f}% robust on these images, {least:g}% are asked for{evidence}"


def _regression(
    protocol: GateProtocol,
    subject: Subject,
    outcome: Outcome,
    values: dict[str, float],
    rules: Rules,
) -> str:
    assert subject.before is not None
    change = values["now"] - values["before"]
    if outcome is not Outcome.FAIL:
        if values["low"] > 0:
            return "robust accuracy rose: update the baseline"
        significant = "significant " if -change > rules.tolerance else ""
        return f"no {significant}drop beyond {rules.tolerance:g} points"
    words = f"robust accuracy fell by {-change:.2f} points (95% interval {-values['high']:.2f} to {-values['low']:.2f})"
    was = subject.before.prediction == subject.before.label  # of a randomised model by expectation, now by one pass
    now = (subject.prediction == protocol.split.y.to(subject.prediction.device)).cpu().numpy()
    p = mcnemar(int((was & ~now).sum()), int((~was & now).sum()))
    if p <= rules.alpha and now.sum() < was.sum() and not subject.spec.randomized:
        words += f"; clean accuracy fell from {percent(was):.2f}% to {percent(now):.2f}%"
    if subject.before.entry.checkpoint_sha256 == subject.spec.sha256:
        words += "; its weights are the recorded ones, so the attack is stronger now: update the baseline"
    return words


def _canary(outcome: Outcome, before: Bools, now: Bools) -> str:
    if outcome is not Outcome.FAIL:
        return "the attack is as strong as recorded"
    return (
        f"the attack became weaker: {int((~before & now).sum())} of the {int((~before).sum())} images that it broke on "
        f"this canary are left standing now, {int((before & ~now).sum())} others broken; whatever the models' numbers "
        "say, they are too high"
    )
