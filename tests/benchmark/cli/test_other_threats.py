"""What is for balls of Linf and L2 alone says so in one line, wherever a user gets there."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks import attack
from attacks.errors import InputError
from attacks.registry import ATTACKS, attack_spec
from attacks.threat_model import ThreatModel

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("diagnose --suite digits-l1 --models natural --attack apgd-l1", "diagnose: expected Linf or L2, got L1"),
        ("speed --suite digits-spatial --models natural", "speed: expected Linf or L2, got spatial-30deg"),
        ("train --defense madry --suite digits-l1", "training in suite digits-l1: expected Linf or L2, got L1"),
        ("certify --suite digits-spatial --models natural", "ibp certifies under Linf, got spatial-30deg"),
        (
            "--norm L0 --epsilon 3 --models natural",
            "suite digits has no attack for L0; name one of `list attacks` by --attacks",
        ),
        ("--norm spatial-999deg --epsilon 3", "norm must be one of Linf, L2, L1, L0, spatial-30deg, got"),
        ("--norm L3 --epsilon 3", "'L3' is not one of 'Linf', 'L2', 'L1', 'L0', 'spatial-30deg'"),
        ("--norm L1 --epsilon 3 --attacks pgd-20", "attack pgd-20 is defined for Linf, L2, got L1"),
        ("gate update --suite digits-spatial --models natural", "attack autoattack-brief is defined for Linf, L2, got"),
        ("corruptions --models natural", "at least 28 x 28 pixels, got 1 x 8 x 8"),
        ("union --suite digits", "expected verdicts of digits in"),
    ],
)
def test_what_a_command_is_not_for_is_refused_in_one_line(
    command: Command, tmp_path: Path, words: str, message: str
) -> None:
    if words.startswith("corruptions"):
        pytest.importorskip("imagecorruptions", reason="imagecorruptions-imaug is not installed")
    places = [] if words.startswith(("gate", "train")) else ["--results-dir", str(tmp_path / "results")]
    baseline = ["--baseline", str(tmp_path / "baseline.json")] if words.startswith("gate") else []
    done = command(tmp_path, *words.split(), *places, *baseline)
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert message in last
    assert last.startswith("error: ")


def test_an_attack_of_the_users_that_steps_by_steepest_ascent_is_refused_under_l1() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    mine = replace(attack_spec("pgd-20"), name="mine", norms=("L1",))
    with pytest.raises(InputError, match="random starts: expected Linf or L2, got L1"):
        attack(model, x, y, mine, epsilon=1.0, norm="L1", precision="fp32")


def test_every_family_of_threat_models_has_an_attack() -> None:
    for norm in ("Linf", "L2", "L1", "L0", "spatial-10deg"):
        assert any(ThreatModel(norm, 1.0).family in spec.norms for spec in ATTACKS.values())
