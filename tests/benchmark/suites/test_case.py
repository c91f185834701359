"""The identity of a case: everything that determines its numbers, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from attacks import mi_fgsm, pgd
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, EarlyStopping, Recurrence
from attacks.threat_model import ThreatModel
from benchmark.suites.case import EvalCase, case_key, identity, trajectory_key, with_pass_counts
from model_zoo.model_spec import ModelSpec

MODEL = ModelSpec(
    "natural",
    suites=("digits",),
    dataset="digits",
    architecture="digits-cnn",
    defense="natural",
    checkpoint="digits/natural.safetensors",
    sha256="a" * 64,
)
OTHER = replace(MODEL, name="madry", sha256="b" * 64)
ATTACK = AttackSpec(
    "pgd-20",
    algorithm="pgd",
    method=Recurrence(pgd.init, pgd.step),
    params={"start": "uniform", "loss": "cross-entropy", "rel_step_size": 0.1},
    steps=20,
)
CASE = EvalCase("digits", "digits", "c" * 64, 40, MODEL, MODEL, ATTACK, ThreatModel("Linf", 0.2), 0)

Change = Callable[[EvalCase], EvalCase]


def attack(**changes: object) -> Change:
    return lambda case: replace(case, attack=replace(case.attack, **changes))  # type: ignore[arg-type]


def model(**changes: object) -> Change:
    return lambda case: replace(case, model=replace(case.model, **changes))  # type: ignore[arg-type]


def case(**changes: object) -> Change:
    return lambda unchanged: replace(unchanged, **changes)  # type: ignore[arg-type]


DETERMINING = {
    "checkpoint": model(sha256="d" * 64),
    "architecture": model(architecture="small-cnn"),
    "code": model(code="factory@" + "e" * 64),
    "source": case(source=OTHER),
    "algorithm": attack(algorithm="mi-fgsm"),
    "version": attack(version=2),
    "start": lambda c: replace(c, attack=c.attack.with_settings(start="none")),
    "loss": lambda c: replace(c, attack=c.attack.with_settings(loss="margin")),
    "step size": lambda c: replace(c, attack=c.attack.with_settings(rel_step_size=0.25)),
    "steps": attack(steps=40),
    "restarts": attack(restarts=2),
    "last reading": attack(reads_last=False),
    "early stopping": attack(reads_last=False, early_stopping=EarlyStopping((2, 4), 0.2)),
    "norm": case(threat=ThreatModel("L2", 0.2)),
    "epsilon": case(threat=ThreatModel("Linf", 0.21)),
    "images": case(images="f" * 64),
    "seed": case(seed=1),
    "judge's draws": case(judge_draws=20),
    "passes of a query": case(eot=20),
}
NAMES = {
    "suite": case(suite="digits-l2"),
    "dataset": case(dataset="mnist"),
    "model's name": model(name="mine"),
    "model's suites": model(suites=("mnist",)),
    "model's file": model(checkpoint="elsewhere.pt"),
    "model's defense": model(defense="madry"),
    "model's paper": model(paper="arXiv:1706.06083", url="https://example.org"),
    "attack's name": attack(name="pgd"),
    "attack's paper": attack(paper="a paper"),
    "attack's norms": attack(norms=("Linf",)),
    "model's randomness": model(randomized=True),  # which judge_draws and eot stand for
    "attack's usual eot": attack(eot=20),
    "order of parameters": lambda c: replace(
        c, attack=replace(c.attack, params=dict(reversed(list(c.attack.params.items()))))
    ),
}


def test_the_key_of_a_fixed_case_is_pinned() -> None:
    # A change here means that every stored verdict is computed again: raise KEY_VERSION, or an attack's version.
    assert case_key(CASE) == "0dbca8bd853cbeff4dd0e2992271c56d"
    assert trajectory_key(CASE) == "da980ba44d97daa7353658af8b80009d"


@pytest.mark.parametrize("change", DETERMINING.values(), ids=DETERMINING.keys())
def test_what_determines_the_numbers_changes_the_key(change: Change) -> None:
    assert case_key(change(CASE)) != case_key(CASE)


@pytest.mark.parametrize("change", NAMES.values(), ids=NAMES.keys())
def test_what_only_names_a_case_does_not_change_its_key(change: Change) -> None:
    assert change(CASE) != CASE or list(change(CASE).attack.params) != list(CASE.attack.params)
    assert case_key(change(CASE)) == case_key(CASE)


def test_no_two_determining_changes_share_a_key() -> None:
    assert len({case_key(change(CASE)) for change in DETERMINING.values()}) == len(DETERMINING)


@pytest.mark.parametrize("change", DETERMINING.values(), ids=DETERMINING.keys())
def test_step_counts_and_nothing_else_share_a_trajectory(change: Change) -> None:
    differs_in_steps_only = change is DETERMINING["steps"]
    assert (trajectory_key(change(CASE)) == trajectory_key(CASE)) == differs_in_steps_only


def test_asking_for_the_trajectory_leaves_the_case_as_it_was() -> None:
    trajectory_key(CASE)
    assert identity(CASE)["attack"]["steps"] == 20


def test_the_algorithm_and_not_the_function_object_identifies_an_attack() -> None:
    other = AttackSpec(
        "x",
        algorithm="pgd",
        method=Recurrence(mi_fgsm.init, mi_fgsm.step),
        params={"rel_step_size": 0.1, "momentum": 1.0},
    )
    assert identity(replace(CASE, attack=other))["attack"]["algorithm"] == "pgd"


def test_a_case_is_a_transfer_only_if_its_source_is_another_network() -> None:
    renamed = replace(MODEL, name="again", checkpoint="copy.safetensors")
    assert not replace(CASE, source=renamed).is_transfer
    assert replace(CASE, source=renamed).cell == ("natural", "pgd-20", "")
    assert replace(CASE, source=OTHER).is_transfer
    assert replace(CASE, source=OTHER).cell == ("natural", "pgd-20", "madry")


def test_an_adaptive_case_is_white_box_under_a_name_and_a_key_of_its_own() -> None:
    surrogates = [
        replace(MODEL, name="natural adaptive", surrogate="jpeg", surrogate_code=f"jpeg {version}")
        for version in (1, 2)
    ]
    first, second = (replace(CASE, source=surrogate) for surrogate in surrogates)
    assert (first.is_adaptive, first.is_transfer) == (True, False)
    assert first.cell == ("natural", "pgd-20 adaptive", "")
    assert len({case_key(CASE), case_key(first), case_key(second)}) == 3
    assert case_key(replace(first, source=replace(surrogates[0], surrogate="elsewhere.py:f"))) == case_key(first)


def test_a_third_party_attack_is_identified_by_library_and_chunk_and_not_by_its_progress_weight() -> None:
    spec = ATTACKS["foolbox-deepfool"]
    assert spec.identity["library"].startswith("foolbox ")
    assert "steps" not in spec.identity
    assert replace(spec, steps=7).identity == spec.identity
    assert ATTACKS["autoattack"].identity["members"][0] == ATTACKS["apgd-ce"].identity


def test_the_target_s_randomness_asks_for_draws_of_the_judge_and_the_source_s_for_passes_of_a_query() -> None:
    random = replace(OTHER, randomized=True)
    assert with_pass_counts(CASE, judge_draws=7) == CASE
    for target, source, draws, eot in ((random, random, 20, 20), (MODEL, random, 0, 20), (random, MODEL, 20, 1)):
        asked = with_pass_counts(replace(CASE, model=target, source=source))
        assert (asked.judge_draws, asked.eot) == (draws, eot)
    asked = with_pass_counts(replace(CASE, model=random, source=random), judge_draws=7, eot=3)
    assert (asked.judge_draws, asked.eot) == (7, 3)
    assert with_pass_counts(CASE, eot=3).eot == 3


def test_an_attack_may_ask_for_several_passes_itself_and_third_parties_ask_as_they_like() -> None:
    rand = replace(CASE, attack=ATTACKS["autoattack-rand"])
    assert with_pass_counts(rand).eot == 20
    assert with_pass_counts(rand, eot=3).eot == 3
    assert with_pass_counts(replace(CASE, attack=ATTACKS["foolbox-deepfool"]), eot=3).eot == 1


def test_a_case_of_a_randomised_model_walks_alone() -> None:
    """Its models draw on as long as they are asked, so a longer walk beside it would be another one."""
    for change in (case(model=replace(OTHER, randomized=True)), case(source=replace(OTHER, randomized=True))):
        random = change(CASE)
        longer = replace(random, attack=replace(random.attack, steps=40))
        assert trajectory_key(longer) != trajectory_key(random)
