"""What the gate concludes from verdicts."""

import numpy as np

from benchmark.gate_rules import (
    FAIL,
    OPEN,
    PASS,
    Rules,
    against_baseline,
    against_canary,
    against_threshold,
    decide,
    schedule,
)
from benchmark.verdicts import Bools

RULES = Rules()


def bits(n: int, robust: int) -> Bools:
    """(n,) bool, the first so many of them True."""
    return np.arange(n) < robust


def test_a_canary_is_read_the_other_way_round() -> None:
    before, now = bits(100, 60), bits(100, 70)
    assert against_baseline(before, now, RULES).excess == -0.1
    assert against_canary(before, now, RULES).excess == 0.1


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
    assert decide({"q": against_canary(before, now, RULES)}, {}, 500, RULES) == {"q": FAIL}
    assert decide({"q": against_baseline(now, before, RULES)}, {}, 500, RULES) == {"q": PASS}


def test_a_canary_passes_where_rounding_or_other_draws_moved_images_both_ways() -> None:
    before, now = bits(500, 300), bits(500, 302)
    assert decide({"q": against_canary(before, now, RULES)}, {}, 500, RULES) == {"q": PASS}
    redrawn = np.roll(bits(500, 300), 20)
    assert decide({"q": against_canary(before, redrawn, RULES)}, {}, 500, RULES) == {"q": PASS}


def test_a_clear_drop_fails_and_no_change_passes_before_the_last_image() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.7
    evidence = {
        "same": against_baseline(before, before, RULES),
        "worse": against_baseline(before, before & (rng.random(200) < 0.5), RULES),
    }
    assert decide(evidence, {}, 1000, RULES) == {"same": OPEN, "worse": FAIL}
    sooner = Rules(tolerance=5.0)
    assert decide({"same": against_baseline(before, before, sooner)}, {}, 1000, sooner) == {"same": PASS}


def test_a_model_that_has_not_changed_is_passed_at_a_look() -> None:
    count = schedule(10_000, RULES)[-1]
    assert count == 10_000
    for count in schedule(10_000, RULES):
        robust = bits(count, count // 2)
        state = decide({"q": against_baseline(robust, robust, RULES)}, {}, 10_000, RULES)["q"]
        if state == PASS:
            break
    assert count < 500


def test_a_drop_within_the_tolerance_passes_however_significant() -> None:
    before = bits(10_000, 6000)
    now = before.copy()
    now[:50] = False
    assert decide({"q": against_baseline(before, now, RULES)}, {}, 10_000, RULES) == {"q": PASS}
    assert decide({"q": against_baseline(before, now, Rules(0.2))}, {}, 10_000, Rules(0.2)) == {"q": FAIL}


def test_a_drop_beyond_the_tolerance_that_may_be_chance_passes() -> None:
    order = np.random.default_rng(0).permutation(500)
    before, now = bits(500, 300)[order], np.roll(bits(500, 290), 40)[order]
    evidence = against_baseline(before, now, RULES)
    assert evidence.excess > evidence.allowed
    assert decide({"q": evidence}, {}, 500, RULES) == {"q": PASS}


def test_more_questions_take_more_evidence() -> None:
    before = bits(500, 300)
    now = before.copy()
    now[:9] = False
    alone = {"0": against_baseline(before, now, RULES)}
    assert decide(alone, {}, 500, RULES)["0"] == FAIL
    among_others = alone | {str(i): against_baseline(before, before, RULES) for i in range(1, 30)}
    assert decide(among_others, {}, 500, RULES)["0"] == PASS


def test_what_is_decided_stays_so() -> None:
    before = bits(500, 300)
    evidence = {"q": against_baseline(before, bits(500, 100), RULES)}
    assert decide(evidence, {"q": PASS}, 500, RULES) == {"q": PASS}
