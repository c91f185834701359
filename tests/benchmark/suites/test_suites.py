import pytest

from attacks.spec import AttackSpec
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
