"""What the gate concludes from verdicts."""

import numpy as np

from benchmark.gate.intervals import change_interval
from benchmark.gate.question import Kind, Outcome, Question
from benchmark.gate.rules import (
    Answer,
    Evidence,
    Rules,
    against_baseline,
    against_canary,
    against_threshold,
    chance,
    decide,
    intolerable,
    schedule,
    tolerable,
)
from benchmark.stats.sequential import looks
from benchmark.stats.shares import Bools

RULES = Rules()
PASS, FAIL, OPEN, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.OPEN, Outcome.INCONCLUSIVE


def about(name: str) -> Question:
    return Question(Kind.REGRESSION, name)


def outcomes(
    evidence: dict[str, Evidence], n: int, rules: Rules = RULES, decided: dict[str, Answer] | None = None
) -> dict[str, Outcome]:
    return {name: answer.outcome for name, answer in answers(evidence, n, rules, decided).items()}


def answers(
    evidence: dict[str, Evidence], n: int, rules: Rules = RULES, decided: dict[str, Answer] | None = None
) -> dict[str, Answer]:
    asked = {about(name): one for name, one in evidence.items()}
    known = {about(name): answer for name, answer in (decided or {}).items()}
    return {question.subject: answer for question, answer in decide(asked, known, n, rules).items()}


def bits(n: int, robust: int) -> Bools:
    """(n,) bool, the first so many of them True."""
    return np.arange(n) < robust


def test_a_canary_is_read_the_other_way_round() -> None:
    before, now = bits(100, 60), bits(100, 70)
    assert against_baseline(before, now, RULES).excess == -0.1
    assert against_canary(before, now).excess == 0.1


def test_a_threshold_asks_for_its_share_of_images() -> None:
    evidence = against_threshold(bits(100, 45), 50.0)
    assert (evidence.null, evidence.allowed) == (0.5, 0.0)
    assert evidence.excess > evidence.allowed
    assert against_threshold(bits(100, 55), 50.0).excess < 0


def test_a_canary_fails_at_a_loss_that_would_be_chance_between_two_models() -> None:
    """Nine images of 500 that stand now, and one that fell: to a model a coin's fall, to a canary no rounding."""
    before, now = bits(500, 300), bits(500, 309)
    now[0] = False
    order = np.random.default_rng(0).permutation(500)
    before, now = before[order], now[order]
    assert outcomes({"q": against_canary(before, now)}, 500) == {"q": FAIL}
    assert outcomes({"q": against_baseline(now, before, RULES)}, 500) == {"q": INCONCLUSIVE}


def test_a_canary_passes_where_rounding_or_other_draws_moved_images_both_ways() -> None:
    before, now = bits(500, 300), bits(500, 302)
    assert outcomes({"q": against_canary(before, now)}, 500) == {"q": PASS}
    redrawn = np.roll(bits(500, 300), 20)
    assert outcomes({"q": against_canary(before, redrawn)}, 500) == {"q": PASS}


def test_a_clear_drop_fails_and_no_change_passes_before_the_last_image() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.7
    evidence = {
        "same": against_baseline(before, before, RULES),
        "worse": against_baseline(before, before & (rng.random(200) < 0.5), RULES),
    }
    assert outcomes(evidence, 1000) == {"same": OPEN, "worse": FAIL}
    sooner = Rules(tolerance=5.0)
    assert outcomes({"same": against_baseline(before, before, sooner)}, 1000, sooner) == {"same": PASS}


def test_a_model_that_has_not_changed_is_passed_at_a_look() -> None:
    count = schedule(10_000, RULES)[-1]
    assert count == 10_000
    for count in schedule(10_000, RULES):
        robust = bits(count, count // 2)
        outcome = outcomes({"q": against_baseline(robust, robust, RULES)}, 10_000)["q"]
        if outcome == PASS:
            break
    assert count < 500


def test_a_drop_within_the_tolerance_passes_however_significant() -> None:
    before = bits(10_000, 6000)
    now = before.copy()
    now[:50] = False
    assert outcomes({"q": against_baseline(before, now, RULES)}, 10_000) == {"q": PASS}
    assert outcomes({"q": against_baseline(before, now, Rules(0.2))}, 10_000, Rules(0.2)) == {"q": FAIL}


def test_a_drop_beyond_the_tolerance_that_may_be_chance_is_inconclusive_when_images_ran_out() -> None:
    order = np.random.default_rng(0).permutation(500)
    before, now = bits(500, 300)[order], np.roll(bits(500, 290), 40)[order]
    evidence = against_baseline(before, now, RULES)
    assert evidence.excess > evidence.allowed
    assert outcomes({"q": evidence}, 500) == {"q": INCONCLUSIVE}
    assert outcomes({"q": evidence}, 501) == {"q": OPEN}
    low, high = change_interval(before, now, 500, RULES, questions=1)
    assert low < -RULES.tolerance < 0 < high


def test_a_drop_of_just_the_tolerance_passes_when_images_ran_out() -> None:
    order = np.random.default_rng(0).permutation(200)
    for lost, outcome in ((2, PASS), (3, INCONCLUSIVE)):
        before, now = bits(200, 120)[order], np.roll(bits(200, 120 - lost), 30)[order]
        assert outcomes({"q": against_baseline(before, now, RULES)}, 200) == {"q": outcome}


def test_a_threshold_that_is_missed_by_chance_is_inconclusive_when_images_ran_out() -> None:
    for robust, outcome in ((100, PASS), (99, INCONCLUSIVE), (60, FAIL)):
        now = np.random.default_rng(0).permutation(bits(200, robust))
        assert outcomes({"q": against_threshold(now, 50.0)}, 200) == {"q": outcome}


def test_more_questions_take_more_evidence() -> None:
    before = bits(500, 300)
    now = before.copy()
    now[:9] = False
    alone = {"0": against_baseline(before, now, RULES)}
    assert outcomes(alone, 500)["0"] == FAIL
    among_others = alone | {str(i): against_baseline(before, before, RULES) for i in range(1, 30)}
    assert outcomes(among_others, 500)["0"] == INCONCLUSIVE


def test_models_that_passed_without_a_changed_image_take_no_evidence_from_others() -> None:
    before = bits(500, 300)
    now = before.copy()
    now[:10] = False
    unchanged = {str(i): against_baseline(before[:219], before[:219], RULES) for i in range(1, 30)}
    passed = answers(unchanged, 500)
    assert {answer.outcome for answer in passed.values()} == {PASS}
    fell = {"0": against_baseline(before, now, RULES)}
    assert outcomes(fell | unchanged, 500, decided=passed)["0"] == FAIL
    changed = against_baseline(before[:219], bits(219, 218), RULES)
    assert outcomes(fell | dict.fromkeys(unchanged, changed), 500, decided=passed)["0"] == INCONCLUSIVE


def test_what_is_decided_stays_so() -> None:
    before = bits(500, 300)
    evidence = {"q": against_baseline(before, bits(500, 100), RULES)}
    assert outcomes(evidence, 500, decided={"q": Answer(PASS, 500, 1.0, 0.0)}) == {"q": PASS}


def test_a_model_that_lost_what_is_tolerated_rarely_fails_though_its_drop_is_significant() -> None:
    """100 of 10,000 images are lost: at how many looks of 300 orders is that taken for more than one point?"""
    draws, failed = np.random.default_rng(0), 0
    before = np.ones(10_000, np.bool_)
    for _ in range(300):
        now = np.ones(10_000, np.bool_)
        now[draws.choice(10_000, 100, replace=False)] = False
        for count in schedule(10_000, RULES):
            evidence = {"q": against_baseline(before[:count], now[:count], RULES)}
            if (outcome := outcomes(evidence, 10_000)["q"]) != OPEN:
                failed += outcome == FAIL
                break
    assert failed <= 9  # of three expected at most; more has a probability of 0.0003


def test_what_is_lost_in_all_is_known_exactly_in_the_end() -> None:
    before, now = bits(500, 300), bits(500, 295)
    assert tolerable(against_baseline(before, now, RULES), 500) == 1.0
    assert intolerable(against_baseline(before, now, RULES), 500) == 0.0
    now[0] = False
    assert tolerable(against_baseline(before, now, RULES), 500) == 0.0
    assert intolerable(against_baseline(before, now, RULES), 500) > RULES.miss


def test_a_failure_takes_evidence_against_chance_and_against_what_is_tolerated() -> None:
    before, order = bits(1000, 600), np.random.default_rng(0).permutation(1000)
    now = before.copy()
    now[:30] = False
    before, now = before[order][:100], now[order][:100]  # in the first tenth, a drop of three points
    evidence = against_baseline(before, now, RULES)
    answer = answers({"q": evidence}, 1000)["q"]
    assert answer.p_fail == max(chance(evidence, 1000, RULES), tolerable(evidence, 1000)) > RULES.alpha
    assert answer.outcome == OPEN


def test_the_tolerance_of_models_is_not_that_of_canaries() -> None:
    before, now = bits(500, 300), bits(500, 310)
    for tolerance in (0.0, 50.0):
        assert outcomes({"q": against_canary(before, now)}, 500, Rules(tolerance)) == {"q": FAIL}


def test_one_look_is_where_an_unchanged_model_is_passed() -> None:
    assert schedule(500, RULES) == tuple(looks(500, 219))
