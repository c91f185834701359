"""Checks made of verdicts alone: each passes where the attack works, and fails where it does not."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.diagnose.finding import Measured, findings, share_p
from benchmark.diagnose.verdict_checks import CHECKS, _worst, verdict_checks
from benchmark.gate.question import Outcome
from benchmark.gate.results import shown_result
from benchmark.report.diagnosis import verdict
from benchmark.stats.gains import gain_p
from benchmark.stats.shares import mcnemar_one_sided
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.verdicts import Verdicts

N = 200


def verdicts(broken: int, *, first: int = 0, last: int | None = None, n: int = N) -> Verdicts:
    """N images, all correct when clean, of which some from `first` on are broken; `last` of them in the end."""
    robust = np.ones(n, np.bool_)
    robust[first : first + broken] = False
    at_last = np.ones(n, np.bool_)
    at_last[first : first + (broken if last is None else last)] = False
    label, passes = np.zeros(n, np.int64), np.ones(n)
    return Verdicts(np.arange(n), label, label, robust, at_last, passes, passes)


WORKING = {
    "tested": verdicts(100),
    "one-step": verdicts(80),
    "epsilon x 1/4": verdicts(20),
    "epsilon x 1/2": verdicts(50),
    "epsilon x 2": verdicts(180),
    "unbounded": verdicts(200),
    "twice the steps": verdicts(102),
    "restarted": verdicts(104),
    "logits x 10": verdicts(106),
    "another loss": verdicts(105),
    "square-500": verdicts(60),
    "spsa-500": verdicts(60),
    "rays-500": verdicts(60),
    "random-points": verdicts(10, n=50),
    "from natural": verdicts(40),
}
BROKEN = {
    "one-step": ("one-step", verdicts(130)),
    "rises-with-epsilon": ("epsilon x 1/2", verdicts(130)),
    "unbounded": ("unbounded", verdicts(150)),
    "steps-suffice": ("twice the steps", verdicts(130)),
    "starts-agree": ("restarted", verdicts(140)),
    "consistent": ("epsilon x 1/2", verdicts(50, first=100)),
    "black-box": ("spsa-500", verdicts(130)),
    "transfer": ("from natural", verdicts(130)),
    "random-points": ("tested", verdicts(100, first=100)),
    "logit-scaling": ("logits x 10", verdicts(140)),
    "other-loss": ("another loss", verdicts(140)),
    "together": ("another loss", verdicts(100, first=50)),  # as many as the attack, half of them others
    "silent-success": ("tested", verdicts(100, last=70)),
}
"""By check, a role and verdicts of it that no working attack shows."""


GAINS = {"within": 108, "open": 116, "fails": 150}
"""Images that a black-box search breaks, of which the attack breaks the first 100."""


def outcomes(shown: dict[str, Verdicts]) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in findings(verdict_checks(shown))}


def test_an_attack_that_works_passes_all_checks() -> None:
    assert set(outcomes(WORKING).values()) == {"passes"}


def test_every_check_has_verdicts_here_that_it_fails_on() -> None:
    assert {check(WORKING).check for check in CHECKS} == set(BROKEN)


@pytest.mark.parametrize("check", BROKEN)
def test_a_check_fails_where_an_attack_shows_what_no_working_one_does(check: str) -> None:
    role, instead = BROKEN[check]
    assert outcomes({**WORKING, role: instead})[check] == "fails"


def test_attacks_that_break_other_images_are_seen_together_alone() -> None:
    role, instead = BROKEN["together"]
    assert [check for check, outcome in outcomes({**WORKING, role: instead}).items() if outcome == "fails"] == [
        "together"
    ]


@pytest.mark.parametrize("check", BROKEN)
def test_a_check_cannot_tell_without_the_run_that_it_compares(check: str) -> None:
    lacking = {
        "black-box": ["square-500", "spsa-500", "rays-500"],
        "transfer": ["from natural"],
        "consistent": list(WORKING),
    }
    lacking |= {"rises-with-epsilon": list(WORKING), "one-step": ["one-step"], "random-points": ["random-points"]}
    without = {role: one for role, one in WORKING.items() if role not in lacking.get(check, ["tested", "restarted"])}
    without.pop({"unbounded": "unbounded", "steps-suffice": "twice the steps"}.get(check, ""), None)
    assert outcomes(without)[check] == "cannot-tell"


def test_another_loss_that_does_not_work_itself_cannot_tell() -> None:
    assert outcomes({**WORKING, "another loss": verdicts(83)})["other-loss"] == "cannot-tell"
    assert outcomes({**WORKING, "another loss": verdicts(85)})["other-loss"] == "passes"


def test_a_difference_beyond_the_margin_that_chance_explains_cannot_tell() -> None:
    few = {role: verdicts(broken, n=20) for role, broken in {"tested": 10, "from natural": 12}.items()}
    assert outcomes(few)["transfer"] == "cannot-tell"  # 10 points, and two images


def test_images_that_one_run_did_not_see_are_left_out() -> None:
    shown = {**WORKING, "random-points": verdicts(50, n=50)}  # all of which the attack breaks, too
    assert outcomes(shown)["random-points"] == "passes"


def test_the_tests_are_exact() -> None:
    assert mcnemar_one_sided(5, 0) == pytest.approx(0.5**5)
    assert mcnemar_one_sided(0, 5) == 1.0
    assert share_p(1, 10, 5.0) == pytest.approx(1 - 0.95**10)


def test_the_more_tests_a_model_has_the_less_one_of_them_says() -> None:
    one = Measured("one", 10.0, 3.0, 0.02, "")
    others = [Measured(f"other {i}", 0.0, 3.0, 1.0, "") for i in range(4)]
    assert [finding.outcome for finding in findings([one])] == ["fails"]
    assert findings([one, *others])[0].outcome == "cannot-tell"


def test_a_fact_needs_no_test_and_takes_no_part_in_the_correction() -> None:
    fact, tested = Measured("fact", 1.0, 0.0, None, ""), Measured("tested", 10.0, 3.0, 0.04, "")
    assert [finding.outcome for finding in findings([fact, tested])] == ["fails", "fails"]


def test_a_pair_beyond_the_margin_decides_before_one_of_smaller_p_within_it() -> None:
    few, many = (90, 0, 1000), (330, 240, 1000)
    within = _worst("black-box", [(20, 0, 1000), many], ["square-500", "spsa-500"], 5.0, "{role} {more}")
    assert within.figure == pytest.approx(9.0)
    assert within.p == pytest.approx(2 * gain_p(*many, 5.0))
    both = _worst("black-box", [few, many], ["square-500", "spsa-500"], 5.0, "{role} {more}")
    assert both.p == pytest.approx(2 * gain_p(*few, 5.0))


@pytest.mark.parametrize(("alone", "outcome"), [(0, "passes"), (1, "cannot-tell"), (3, "fails")])
def test_what_random_points_break_alone_counts_however_many_the_attack_breaks_alone(alone: int, outcome: str) -> None:
    broken = verdicts(5 + alone, first=15, n=25)  # of which the attack breaks five
    shown = {**WORKING, "tested": verdicts(20), "random-points": broken}
    assert outcomes(shown)["random-points"] == outcome


def test_images_that_are_wrong_when_clean_count_for_nothing() -> None:
    """Three are right: no test of three images can tell, whatever the other 197 are."""
    few = {}
    for role, broken in {"tested": 0, "from natural": 3, "twice the steps": 0}.items():
        one = verdicts(broken)
        wrong = np.where(np.arange(N) < 3, one.label, 1)
        few[role] = replace(one, prediction=wrong, robust_any=one.robust_any & (wrong == 0), robust_last=None)
    found = {finding.check: finding for finding in findings(verdict_checks(few))}
    assert (found["transfer"].outcome, found["transfer"].figure) == ("cannot-tell", 100.0)
    assert found["steps-suffice"].outcome == "cannot-tell"


def test_a_figure_beyond_its_margin_that_chance_may_explain_is_not_taken_for_shown() -> None:
    found = {name: findings(verdict_checks({**WORKING, "spsa-500": verdicts(n)})) for name, n in GAINS.items()}
    made = {name: Diagnosis("mine", {}, "pgd-40", N, 1.0, 1.0, rows) for name, rows in found.items()}
    assert {name: (one.failed, one.beyond, one.is_shown) for name, one in made.items()} == {
        "within": ([], [], True),
        "open": ([], ["black-box"], False),
        "fails": (["black-box", "together"], [], False),
    }
    assert "black-box beyond the margin" in verdict(made["open"])
    assert shown_result(made["open"]).outcome is Outcome.FAIL
    assert shown_result(made["within"]).outcome is Outcome.PASS
