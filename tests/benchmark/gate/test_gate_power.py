"""Which drops the gate says that it detects, against its own decisions on simulated runs."""

import numpy as np
import pytest

from benchmark.gate.power import POWERS, RETRAINED, as_record, detectable, fails, in_words, power
from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.rules import Answer, Rules, against_baseline, decide, schedule
from benchmark.stats.shares import Bools

RULES = Rules()
ALONE = Question(Kind.REGRESSION, "0")


def decision(before: Bools, now: Bools, questions: int) -> Outcome:
    """What `decide` comes to at the look that decides of a model, among others that changed and are undecided."""
    n = len(before)
    changed = np.zeros(n, np.bool_)
    changed[:2] = True
    for count in schedule(n, RULES):
        others = against_baseline(changed[:count], changed[:count] & (np.arange(count) > 0), RULES)
        asked = {Question(Kind.REGRESSION, str(i)): others for i in range(1, questions)}
        evidence = {ALONE: against_baseline(before[:count], now[:count], RULES), **asked}
        none: dict[Question, Answer] = {}
        answer = decide(evidence, none, n, RULES, largest=RULES.alpha)[ALONE]
        if answer.outcome is not Outcome.OPEN:
            return answer.outcome
    raise AssertionError("undecided after all images")


@pytest.mark.parametrize(("questions", "churn"), [(1, 0.0), (1, RETRAINED), (4, 0.0), (4, RETRAINED)])
def test_a_drop_is_detected_as_often_as_is_said_by_the_gates_own_decisions(questions: int, churn: float) -> None:
    n, runs = 300, 150
    for wanted, drop in zip(POWERS, detectable(n, RULES, questions=questions, churn=churn), strict=True):
        assert drop is not None
        draws, failed = np.random.default_rng([questions, int(100 * churn)]), 0
        for _ in range(runs):
            before = draws.random(n) < 0.6
            chance = draws.random(n)
            worse, better = chance < drop / 100 + churn / 2, chance > 1 - churn / 2
            before = (before | worse) & ~better
            failed += decision(before, (before & ~worse) | better, questions) is Outcome.FAIL
        error = (wanted * (1 - wanted) / runs) ** 0.5
        assert abs(failed / runs - wanted) <= 4 * error


def test_each_simulated_run_fails_where_the_gate_does() -> None:
    chance = np.random.default_rng(0).random((60, 400))
    worse, better = chance < 0.09, chance > 0.96
    expected = [decision(~b, (~b & ~w) | b, 3) is Outcome.FAIL for w, b in zip(worse, better, strict=True)]
    assert fails(worse, better, 400, RULES, questions=3).tolist() == expected
    assert set(expected) == {True, False}


def test_more_images_detect_less_and_more_questions_or_changes_take_more() -> None:
    def drops(n: int, questions: int = 1, churn: float = 0.0) -> list[float]:
        return [drop or 100.0 for drop in detectable(n, RULES, questions=questions, churn=churn)]

    one = drops(200)
    assert RULES.tolerance < one[0] < one[1]
    for others, sign in ((drops(800), -1), (drops(200, questions=30), 1), (drops(200, churn=RETRAINED), 1)):
        assert all(sign * (other - this) > 0 for other, this in zip(others, one, strict=True))


def test_a_drop_that_no_number_of_images_could_show_is_none() -> None:
    assert detectable(5, RULES, questions=4, churn=0.0) == [None, None]
    assert in_words([3.0, None], 0.0) == (
        "3 points with probability 0.8, no drop with probability 0.95 where nothing else changes"
    )
    assert as_record([3.0, None], questions=4, churn=0.0) == {"questions": 4, "churn": 0.0, "80%": 3.0, "95%": None}


def test_an_unchanged_model_never_fails_and_a_tolerated_drop_rarely_does() -> None:
    assert power(0.0, 300, RULES, questions=1, churn=0.0) == 0.0
    assert power(0.0, 300, RULES, questions=1, churn=RETRAINED) <= 0.03
