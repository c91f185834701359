"""What the gate found, in words: one result a question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.gate.fallen import fallen_images
from benchmark.gate.intervals import change_interval, robust_interval, saved_interval
from benchmark.gate.protocol import GateProtocol, Subject
from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.rules import Answer, Rules
from benchmark.gate.run import GateRun, attack_became_weaker
from benchmark.gate.words import counted, points
from benchmark.report.flags import flag_names, name_of
from benchmark.stats.shares import Bools, mcnemar, percent
from benchmark.store.diagnosis import Diagnosis

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
        fell: of a regression that failed, which images fell. renew: the command that records the model anew, where that
            is what helps.
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
    fell: str = ""
    renew: str = ""


def sanity_failure(subject: str, words: str, *, renew: str = "") -> Result:
    """A model that is not worth attacking, or no longer to be trusted."""
    return Result(Question(Kind.SANITY, subject), Outcome.FAIL, words, renew=renew)


def shown_result(diagnosis: Diagnosis) -> Result:
    """Whether the attack that was diagnosed on a model is shown to work there."""
    failed, question = diagnosis.failed, Question(Kind.SHOWN, diagnosis.model)
    if not failed and diagnosis.beyond:
        words = (
            f"not shown: {', '.join(diagnosis.beyond)} beyond the margin, which chance may explain on "
            f"{counted(diagnosis.n, 'image')}; diagnose more of them, or attack by what is stronger there"
        )
        return Result(question, Outcome.FAIL, words)
    if not failed and not diagnosis.is_shown:
        words = (
            f"not shown: nothing speaks against {diagnosis.attack} on this model, and nothing for it: of the checks, "
            f"{', '.join(diagnosis.unsure)} cannot tell on {counted(diagnosis.n, 'image')}; diagnose more of them"
        )
        return Result(question, Outcome.FAIL, words)
    if not failed:
        words = f"nothing speaks against {diagnosis.attack}, {counted(diagnosis.n, 'image')} diagnosed"
        return Result(question, Outcome.PASS, words)
    words = f"not-shown: {diagnosis.attack} is not shown to work on this model, by {', '.join(failed)}"
    return Result(question, Outcome.FAIL, words)


def new_caveats(subject: Subject, renew: str) -> Result | None:
    """A model with a caveat that it had not before."""
    assert subject.before is not None
    before = flag_names(subject.before.flags)
    new = [flag for flag in subject.flags if name_of(flag) not in before]
    if not new:
        return None
    words = f"it has a caveat that it had not before: {', '.join(new)}"
    if flag_names(new) & set(MASKING):
        words = f"its gradients are masked now ({', '.join(new)}): an attack by gradient that fails says nothing"
    return sanity_failure(subject.spec.name, words, renew=renew)


def results(
    protocol: GateProtocol, subjects: Sequence[Subject], run: GateRun, rules: Rules, renewals: Mapping[str, str]
) -> list[Result]:
    """One for every question, in the order of the subjects.

    Args:
        renewals: by model, the command that records it anew.
    """
    by_name = {subject.spec.name: subject for subject in subjects}
    is_void = attack_became_weaker(run.answers)
    found = []
    for question, answer in run.answers.items():
        result = _result(protocol, by_name[question.subject], question, answer, run, rules)
        if is_void and (question.kind is not Kind.CANARY or answer.outcome is Outcome.OPEN):
            words = "says nothing: the attack became weaker"
            result = replace(result, outcome=Outcome.VOID, words=words, fell="", renew="")
        elif result.outcome is Outcome.FAIL and question.kind is Kind.REGRESSION:
            result = replace(result, renew=renewals[question.subject])
        found.append(result)
    return found


def screened(result: Result) -> Result:
    """What a screen found: a failure as it is, and anything else undecided, since the whole attack breaks more."""
    if result.outcome is Outcome.FAIL:
        return result
    words = f"screened only: no clear drop on {counted(result.seen, 'image')}; a run without --screen decides"
    return Result(result.question, Outcome.OPEN, words, result.seen, p_fail=result.p_fail)


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
    fell = ""
    if answer.outcome is Outcome.OPEN:
        words = f"undecided when the time was up: {percent(now) - before:+.2f} points so far"
    elif question.kind is Kind.THRESHOLD:
        words = _threshold(percent(now), answer, rules)
    elif question.kind is Kind.CANARY:
        words = _canary(answer.outcome, robust, now)
    else:
        words = _regression(protocol, subject, answer, numbers, rules)
        if answer.outcome is Outcome.FAIL:
            fell = fallen_images(protocol.split, run.order[: answer.seen], robust, now)
    p_values = answer.p_fail, answer.p_pass
    return Result(question, answer.outcome, words, answer.seen, before, percent(now), low, high, *p_values, fell)


def _threshold(now: float, answer: Answer, rules: Rules) -> str:
    least = rules.min_robust or 0.0
    ran_out = _ran_out(answer) if answer.outcome is Outcome.INCONCLUSIVE else ""
    evidence = ", not significantly fewer" if answer.outcome is not Outcome.FAIL and now < least else ""
    return f"{ran_out}{now:.2f}% robust on these images, {least:g}% are asked for{evidence}"


def _ran_out(answer: Answer) -> str:
    return f"inconclusive: {counted(answer.seen, 'image')}: "


def _regression(
    protocol: GateProtocol,
    subject: Subject,
    answer: Answer,
    values: dict[str, float],
    rules: Rules,
) -> str:
    assert subject.before is not None
    change = values["now"] - values["before"]
    interval = f"(95% interval {-values['high']:.2f} to {-values['low']:.2f})"
    if answer.outcome is Outcome.INCONCLUSIVE:
        return f"{_ran_out(answer)}robust accuracy fell by {-change:.2f} points {interval}, which may be chance"
    if answer.outcome is not Outcome.FAIL:
        if values["low"] > 0:
            return "robust accuracy rose: update the baseline"
        return f"no drop beyond {points(rules.tolerance)}"
    words = f"robust accuracy fell by {-change:.2f} points {interval}"
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
    saved, broken, others = int((~before & now).sum()), int((~before).sum()), int((before & ~now).sum())
    return (
        f"the attack became weaker: {saved} of {counted(broken, 'image')} that it broke on this canary are left "
        f"standing now, {counted(others, 'other')} broken; whatever the models' numbers say, they are too high"
    )
