"""The gate: models and canaries are attacked in growing batches, until every question about them is decided."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmark.data.split import random_order
from benchmark.gate.protocol import Bench, Subject, attack_batch
from benchmark.gate.rules import (
    FAIL,
    OPEN,
    Answer,
    Evidence,
    Rules,
    against_baseline,
    against_canary,
    against_threshold,
    decide,
    schedule,
)
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
class Course:
    """How a run of the gate ended.

    Args:
        order: (N,) the positions of the images in the order in which they came in.
        records: by subject.
        evidence, answers: by question, "KIND SUBJECT", at the look that decided it, or at the last one.
        is_late: the time was up before all questions were decided.
    """

    order: NDArray[np.int64]
    records: Mapping[str, Record]
    evidence: Mapping[str, Evidence]
    answers: Mapping[str, Answer]
    is_late: bool


def run_gate(
    bench: Bench,
    subjects: Sequence[Subject],
    rules: Rules,
    *,
    budget: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Course:
    """Attack until every question is decided, the attack has become weaker, or the time is up.

    Args:
        budget: seconds.
        tell: called with a line after each look.
    """
    started, n = time.monotonic(), len(bench.split)
    order = random_order(bench.split, seed=bench.seed)
    records = {subject.spec.name: Record() for subject in subjects}
    evidence: dict[str, Evidence] = {}
    answers: dict[str, Answer] = {}
    seen = 0
    for count in schedule(n, rules):
        if budget is not None and seen and time.monotonic() - started > budget:
            return Course(order, records, evidence, answers, is_late=True)
        batch = order[seen:count]
        active = [s for s in subjects if not answers or any(answers[q].state == OPEN for q in _questions(s, rules))]
        for name, (robust, passes) in attack_batch(bench, active, np.sort(batch)).items():
            records[name].robust.append(robust[np.argsort(np.argsort(batch))])
            records[name].passes += passes
        seen = count
        decided = {question: answer for question, answer in answers.items() if answer.state != OPEN}
        now = {q: e for s in subjects for q, e in _evidence(s, records[s.spec.name], order, rules).items()}
        evidence = {question: evidence[question] if question in decided else now[question] for question in now}
        answers = decide(evidence, decided, n, rules)
        waiting = sum(answer.state == OPEN for answer in answers.values())
        tell(f"{count} of {n} images: {len(answers) - waiting} of {len(answers)} questions decided")
        if not waiting or any(answer.state == FAIL and q.startswith("canary ") for q, answer in answers.items()):
            break
    return Course(order, records, evidence, answers, is_late=False)


def _questions(subject: Subject, rules: Rules) -> list[str]:
    name = subject.spec.name
    if subject.is_canary:
        return [f"canary {name}"]
    return [f"regression {name}"] + ([f"threshold {name}"] if rules.min_robust is not None else [])


def _evidence(subject: Subject, record: Record, order: NDArray[np.int64], rules: Rules) -> dict[str, Evidence]:
    assert subject.before is not None
    now = record.seen
    before = subject.before.robust_any[order[: len(now)]]
    asked = {
        "canary": lambda: against_canary(before, now),
        "regression": lambda: against_baseline(before, now, rules),
        "threshold": lambda: against_threshold(now, rules.min_robust or 0.0),
    }
    return {question: asked[question.partition(" ")[0]]() for question in _questions(subject, rules)}
