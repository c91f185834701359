from pathlib import Path

import pytest

from attacks.spec import AttackSpec
from benchmark.suites.models import models_for
from benchmark.suites.paper_suites import PAPER_SUITES
from benchmark.suites.registry import SUITES

PAPERS = {suite.name for suite in PAPER_SUITES}
STEPPED = [
    (suite.name, attack)
    for suite in SUITES.values()
    for attack in suite.attacks
    if suite.name not in PAPERS and "rel_step_size" in attack.params and attack.steps > 1
]


@pytest.mark.parametrize(("suite", "attack"), STEPPED, ids=[f"{suite}-{attack.name}" for suite, attack in STEPPED])
def test_steps_reach_every_point_of_the_ball(suite: str, attack: AttackSpec) -> None:
    length = attack.steps * attack.params["rel_step_size"]
    if attack.algorithm == "mi-fgsm":
        assert length == pytest.approx(1), f"{suite}: a step of MI-FGSM is epsilon / T"
    else:
        assert length >= 2, f"{suite}: from one end of the ball the other is out of reach"


def test_the_masked_suites_have_an_undefended_and_an_honest_control_beside_their_own_models() -> None:
    for dataset in ("digits", "mnist"):
        models = models_for(f"{dataset}-masked", Path("none of the user's"))
        lent = [name for name, spec in models.items() if f"{dataset}-masked" not in spec.suites]
        assert lent[:2] == list(models)[:2] == ["natural", "madry"]
        assert set(lent[2:]) <= {"cascade"}
        assert all(dataset in models[name].suites for name in lent)


def test_adaptive_attacks_are_read_by_any_iterate_alone() -> None:
    suites = [suite for suite in SUITES.values() if suite.adaptive]
    assert [suite.name for suite in suites] == ["digits-masked", "mnist-masked"]
    assert not any(attack.reads_last for suite in suites for attack in suite.adaptive)


def test_a_loss_behind_an_attacks_name_keeps_the_suites_settings() -> None:
    suite = SUITES["cifar10"]
    own, named = suite.attack("pgd-20"), suite.attack("pgd-20-dlr")
    assert own is not None
    assert named == own.with_loss("dlr")
    assert (suite.attack("autoattack-dlr"), suite.attack("pgd-21-dlr")) == (None, None)
