"""The gate: models and canaries are attacked in growing batches, until every question about them is decided."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmark.data.split import random_order
from benchmark.gate.protocol import GateProtocol, Subject, attack_subjects
from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.rules import (
    Answer,
    Evidence,
    Rules,
    against_baseline,
    against_canary,
    against_threshold,
    decide,
    schedule,
)
from benchmark.gate.words import counted
from benchmark.stats.shares import Bools


@dataclass
class Record:
    """What the gate has seen of a subject so far, in the order in which images came in."""

    robust: list[Bools] = field(default_factory=list)
    passes: float = 0.0

    @property
    def seen(self) -> Bools:
        """(seen,) bool."""
        return np.concatenate(self.robust) if self.robust else np.zeros(0, np.bool_)


@dataclass(frozen=True)
class GateRun:
    """How a run of the gate ended.

    Args:
        order: (N,) the positions of the images in the order in which they came in.
        records: by subject.
        answers: at the look that decided the question, or at the last one.
    """

    order: NDArray[np.int64]
    records: Mapping[str, Record]
    answers: Mapping[Question, Answer]


def run_gate(
    protocol: GateProtocol,
    subjects: Sequence[Subject],
    rules: Rules,
    *,
    budget: float | None = None,
    most: int | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> GateRun:
    """Attack until every question is decided, the attack has become weaker, or the time is up.

    Args:
        budget: seconds. most: images; looks that need more are left out.
        notify: called with a line after each look.
    """
    started, n = time.monotonic(), len(protocol.split)
    order = random_order(protocol.split, seed=protocol.seed)
    records = {subject.spec.name: Record() for subject in subjects}
    evidence: dict[Question, Evidence] = {}
    answers: dict[Question, Answer] = {}
    seen = 0
    for count in schedule(n, rules):
        if budget is not None and seen and time.monotonic() - started > budget:
            break
        if most is not None and seen and count > most:
            break
        batch = order[seen:count]
        waiting = {question.subject for question, answer in answers.items() if answer.outcome is Outcome.OPEN}
        active = [subject for subject in subjects if not seen or subject.spec.name in waiting]
        for name, (robust, passes) in attack_subjects(protocol, active, np.sort(batch)).items():
            records[name].robust.append(robust[np.argsort(np.argsort(batch))])
            records[name].passes += passes
        seen = count
        decided = {question: answer for question, answer in answers.items() if answer.outcome is not Outcome.OPEN}
        now = {q: e for s in subjects for q, e in _evidence(s, records[s.spec.name], order, rules).items()}
        evidence = {question: evidence[question] if question in decided else now[question] for question in now}
        answers = decide(evidence, decided, n, rules)
        undecided = sum(answer.outcome is Outcome.OPEN for answer in answers.values())
        asked = counted(len(answers), "question")
        notify(f"{count} of {counted(n, 'image')}: {len(answers) - undecided} of {asked} decided")
        if not undecided or attack_became_weaker(answers):
            break
    return GateRun(order, records, answers)


def attack_became_weaker(answers: Mapping[Question, Answer]) -> bool:
    """Whether a canary failed, so that no other answer means anything."""
    return any(question.kind is Kind.CANARY and one.outcome is Outcome.FAIL for question, one in answers.items())


def _evidence(subject: Subject, record: Record, order: NDArray[np.int64], rules: Rules) -> dict[Question, Evidence]:
    """What is asked of a subject, and what the images so far say to it."""
    assert subject.before is not None
    name, now = subject.spec.name, record.seen
    before = subject.before.robust_any[order[: len(now)]]
    if subject.is_canary:
        return {Question(Kind.CANARY, name): against_canary(before, now)}
    evidence = {Question(Kind.REGRESSION, name): against_baseline(before, now, rules)}
    if rules.min_robust is not None:
        evidence[Question(Kind.THRESHOLD, name)] = against_threshold(now, rules.min_robust)
    return evidence
