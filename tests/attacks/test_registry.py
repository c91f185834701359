import re
from typing import Any

import pytest
from torch import Tensor

from attacks.errors import InputError
from attacks.names import by_name
from attacks.oracle import CountingClassifier
from attacks.registry import ATTACKS, FAMILIES, attack_spec, known_attack, query_budget
from attacks.spec import AttackSpec, Recurrence, ThirdParty
from attacks.threat_model import LARGEST_EPSILON, ThreatModel


def init(x: Tensor, y: Tensor, *, start: str, spread: float = 1.0) -> None:
    """The first function of a recurrence that is never run."""


def step(oracle: object, state: object, *, rel_step_size: float) -> None:
    """The second one."""


def propose(
    classifier: CountingClassifier, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, queries: int
) -> Tensor:
    raise NotImplementedError


RECURRENCE, THIRD_PARTY = Recurrence(init, step), ThirdParty(propose, "foolbox")
GOOD = {"start": "none", "rel_step_size": 0.5}


def test_parameters_go_to_the_functions_that_take_them() -> None:
    spec = AttackSpec("a", algorithm="a", method=RECURRENCE, params=GOOD)
    assert (spec.init_params, spec.step_params, spec.propose_params) == ({"start": "none"}, {"rel_step_size": 0.5}, {})
    third_party = AttackSpec("b", algorithm="b", method=THIRD_PARTY, params={"queries": 3})
    assert (third_party.init_params, third_party.step_params) == ({}, {})
    assert third_party.propose_params == {"queries": 3}


def test_a_parameter_with_a_default_may_be_left_out_or_given() -> None:
    assert "spread" not in AttackSpec("a", algorithm="a", method=RECURRENCE, params=GOOD).init_params
    assert AttackSpec("a", algorithm="a", method=RECURRENCE, params={**GOOD, "spread": 2.0}).init_params == {
        "start": "none",
        "spread": 2.0,
    }


@pytest.mark.parametrize(
    ("method", "params", "complaint"),
    [
        (RECURRENCE, {**GOOD, "moment": 1}, "unknown parameters ['moment'], missing []"),
        (RECURRENCE, {"start": "none"}, "unknown parameters [], missing ['rel_step_size']"),
        (RECURRENCE, {"rel_step_size": 0.5}, "unknown parameters [], missing ['start']"),
        (RECURRENCE, {"start": "none", "stepsize": 1}, "unknown parameters ['stepsize'], missing ['rel_step_size']"),
        (THIRD_PARTY, {}, "unknown parameters [], missing ['queries']"),
        (THIRD_PARTY, {"queries": 3, "start": "none"}, "unknown parameters ['start'], missing []"),
        (THIRD_PARTY, {"queries": 3, "seed": 0}, "unknown parameters ['seed'], missing []"),
        (RECURRENCE, {**GOOD, "x": 0}, "unknown parameters ['x'], missing []"),
    ],
)
def test_unknown_and_missing_parameters_are_named(
    method: Recurrence | ThirdParty, params: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InputError) as caught:
        AttackSpec("mine", algorithm="mine", method=method, params=params)
    assert str(caught.value) == f"attack mine: {complaint}"


@pytest.mark.parametrize("settings", [{"steps": 0}, {"restarts": 0}, {"steps": -1}])
def test_at_least_one_step_and_one_start_are_asked_for(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"attack mine: (steps|restarts) must be a whole number of at least 1, got"):
        AttackSpec("mine", algorithm="mine", method=RECURRENCE, params=GOOD, **settings)  # type: ignore[arg-type]


def test_another_papers_settings_change_what_is_given_and_nothing_else() -> None:
    spec = AttackSpec(
        "a", algorithm="a", method=RECURRENCE, params=GOOD, steps=3, restarts=2, reads_last=False, version=4, paper="s"
    )
    changed = spec.with_settings(steps=7, rel_step_size=0.25)
    expected = AttackSpec(
        "a",
        algorithm="a",
        method=RECURRENCE,
        params={**GOOD, "rel_step_size": 0.25},
        steps=7,
        restarts=2,
        reads_last=False,
        version=4,
        paper="s",
    )
    assert changed == expected
    assert spec.params == GOOD
    assert spec.steps == 3
    assert spec.with_settings() == spec
    assert spec.with_settings(restarts=9).restarts == 9


@pytest.mark.parametrize(
    "change",
    [
        {"moment": 1},
        *({"steps": wrong} for wrong in (0, 2.5, "5", True)),
        *({"restarts": wrong} for wrong in (0, 2.5)),
        *({"rel_step_size": wrong} for wrong in (0.0, -0.1, float("nan"), float("inf"), "x", None)),
        {"loss": "foo"},
    ],
    ids=str,
)
def test_settings_that_the_attack_does_not_take_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="attack pgd-20: "):
        attack_spec("pgd-20").with_settings(**change)


def test_settings_of_an_ensemble_are_its_members() -> None:
    with pytest.raises(InputError, match="settings are those of its members"):
        attack_spec("autoattack").with_settings(steps=5)
    assert attack_spec("autoattack").with_settings(name="mine").identity == attack_spec("autoattack").identity


def test_the_length_that_a_method_is_made_for_is_the_number_of_its_steps() -> None:
    spec = ATTACKS["apgd-ce"].with_settings(steps=7)
    assert spec.init_params == {}
    assert spec.step_params["iterations"] == spec.identity["params"]["iterations"] == spec.identity["steps"] == 7
    assert "iterations" not in ATTACKS["pgd-20"].identity["params"]
    with pytest.raises(InputError, match="attack apgd-ce: iterations is the number of steps; set steps in its place"):
        spec.with_settings(iterations=7)


@pytest.mark.parametrize(
    ("name", "changes", "is_targeted"),
    [
        ("apgd-t", {}, True),
        ("apgd-t", {"loss": "dlr"}, False),
        ("apgd-ce", {"loss": "difference"}, True),
        ("fab-t", {}, True),
        ("fab-t", {"targeted": False}, False),
        ("pgd-20", {}, False),
    ],
)
def test_an_attack_is_targeted_where_its_parameters_say_so(
    name: str, changes: dict[str, object], is_targeted: bool
) -> None:
    assert ATTACKS[name].with_settings(**changes).is_targeted == is_targeted  # type: ignore[arg-type]


def test_an_attack_is_found_by_its_name() -> None:
    assert attack_spec("pgd-40") is ATTACKS["pgd-40"]
    assert attack_spec("pgd-40").steps == 40


@pytest.mark.parametrize(
    ("name", "nearest"), [("pgd40", "pgd-40"), ("CW-Linf", "cw-linf"), ("autoatack-reference", "autoattack-reference")]
)
def test_an_unknown_attack_is_answered_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown attack {name!r}; did you mean {nearest!r}. known: fgsm, pgd-20, "):
        attack_spec(name)


def test_no_name_is_registered_twice() -> None:
    spec = AttackSpec("twin", algorithm="a", method=RECURRENCE, params=GOOD)
    assert by_name([spec], "attack") == {"twin": spec}
    with pytest.raises(InputError, match="attack 'twin' is registered twice; give one of them another name"):
        by_name([spec, spec.with_settings(steps=2)], "attack")


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_registered_attack_goes_by_its_name_and_names_its_norms_and_source(name: str) -> None:
    spec = ATTACKS[name]
    assert spec.name == name
    assert spec.norms
    assert set(spec.norms) <= set(LARGEST_EPSILON)
    assert "arXiv:" in spec.paper


def test_attacks_of_one_algorithm_differ_in_more_than_their_name() -> None:
    identities = [(spec.identity, spec.eot) for spec in ATTACKS.values()]
    assert all(identities.count(identity) == 1 for identity in identities)


@pytest.mark.parametrize("name", ["pgd-20", "pgd-40", "pgd-100"])
def test_the_pgd_rows_differ_in_their_steps_only_so_that_one_trajectory_serves_them(name: str) -> None:
    spec = ATTACKS[name]
    assert spec.steps == int(name.removeprefix("pgd-"))
    assert spec.with_settings(steps=20).params == ATTACKS["pgd-20"].params
    assert (spec.algorithm, spec.restarts, spec.reads_last) == ("pgd", 1, True)


def test_fgsm_is_one_full_step_from_the_image_itself() -> None:
    spec = ATTACKS["fgsm"]
    assert (spec.algorithm, spec.steps, spec.restarts) == ("pgd", 1, 1)
    assert spec.params == {"start": "none", "loss": "cross-entropy", "rel_step_size": 1.0}


def test_another_loss_is_for_recurrences_that_climb_one_with_the_same_kind_of_labels() -> None:
    able = {name for name, spec in ATTACKS.items() if spec.can_climb("margin")}
    assert {"fgsm", "pgd-20", "cw-linf", "mi-fgsm", "apgd-ce"} & able == able & {
        *("fgsm", "pgd-20", "cw-linf", "mi-fgsm", "apgd-ce", "apgd-t", "square", "autoattack", "foolbox-deepfool")
    }
    assert {name for name, spec in ATTACKS.items() if spec.can_climb("difference")} == {"apgd-t", "apgd-l1-t"}
    assert not any(spec.can_climb("kl-divergence") for spec in ATTACKS.values())
    changed = ATTACKS["pgd-20"].with_loss("margin")
    assert (changed.name, changed.params["loss"]) == ("pgd-20-margin", "margin")
    assert ATTACKS["pgd-20"].with_loss("cross-entropy") is ATTACKS["pgd-20"]


@pytest.mark.parametrize("family", ["square", "spsa", "nes", "rays", "foolbox-boundary", "foolbox-hopskipjump"])
@pytest.mark.parametrize("queries", [50, 1000, 2000, 10_000])
def test_a_number_behind_the_name_of_a_query_attack_is_its_budget(family: str, queries: int) -> None:
    spec = attack_spec(f"{family}-{queries}")
    assert spec.name == f"{family}-{queries}"
    assert query_budget(spec) == queries
    assert spec.asks_for == ("logits" if family in ("square", "spsa", "nes") else "labels")


def test_names_of_the_table_and_those_of_a_family_are_the_same_attacks() -> None:
    for name in (name for name in ATTACKS if name.rpartition("-")[0] in FAMILIES):
        family, _, length = name.rpartition("-")
        if length.isdecimal():
            assert FAMILIES[family].make(name, int(length)).identity == ATTACKS[name].identity, name
    assert attack_spec("square-5000").identity == ATTACKS["square"].identity
    assert attack_spec("nes-2000").identity == ATTACKS["nes"].identity
    assert attack_spec("rays-2000").identity == ATTACKS["rays"].identity


def test_the_budgets_of_other_attacks_without_gradients_are_known() -> None:
    budgets = {name: query_budget(ATTACKS[name]) for name in ("spsa", "random-points", "reference-square", "pgd-20")}
    assert budgets == {"spsa": 25_700, "random-points": 10_000, "reference-square": None, "pgd-20": None}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("square-1234", "a multiple of 50, got 1234; use square-1250"),
        ("spsa-1", "a multiple of 50, got 1; use spsa-50"),
        ("rays-0", "from 1 to 1000000, got 0; use rays-1"),
        ("pgd-2000000", "expected a number of steps from 1 to 1000000"),
        ("sqare-1000", "did you mean 'square-500'?"),
    ],
)
def test_a_budget_that_an_attack_cannot_have_is_refused_with_the_nearest_one(name: str, remedy: str) -> None:
    with pytest.raises(InputError, match=re.escape(remedy)):
        attack_spec(name)
    assert known_attack(name) is None


def test_a_name_that_ends_with_a_loss_is_the_attack_that_climbs_it() -> None:
    named, own = attack_spec("pgd-30-dlr"), attack_spec("pgd-30").with_loss("dlr")
    assert (named.name, named.identity) == ("pgd-30-dlr", own.identity)
    assert attack_spec("pgd-30-cross-entropy-x10").params["loss"] == "cross-entropy-x10"
    assert attack_spec("apgd-dlr").identity == ATTACKS["apgd-dlr"].identity
    with pytest.raises(InputError, match="unknown attack 'square-dlr'"):
        attack_spec("square-dlr")
