"""The bar of a sweep counts images, begins at what is stored, and names what is computed."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.suites.case import EvalCase
from benchmark.sweep.local_pool import can_fork
from benchmark.sweep.progress import SweepBar, said_if_slow
from benchmark.sweep.tasks import Task
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS

Command = Callable[..., subprocess.CompletedProcess[str]]
NATURAL, MADRY = (next(spec for spec in MODELS if spec.name == name) for name in ("natural", "madry"))


def case(model: ModelSpec, attack: str) -> EvalCase:
    return EvalCase("digits", "digits", "c" * 64, 500, model, model, ATTACKS[attack], ThreatModel("Linf", 0.2), 0)


def drawn(text: str) -> list[str]:
    """The states that a bar went through, without the bar itself and the time."""
    lines = [line.partition("|") for line in text.replace("\n", "\r").split("\r") if line.endswith(" images]")]
    return [f"{head} {re.sub(r'.*<.*?, ', '', rest)[:-1]}" for head, _, rest in lines]


def test_a_bar_begins_at_what_is_stored_and_names_the_first_task_that_is_not_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = [case(NATURAL, "pgd-20"), case(NATURAL, "pgd-40"), case(MADRY, "pgd-20")]
    todo = [Task(cases[:2], [(250, 500)]), Task(cases[2:], [(0, 250)]), Task(cases[2:], [(250, 500)])]
    with SweepBar(todo, [500, 250, 250], cases, quiet=False) as bar:
        bar.finish(1)
        bar.advance(2500)
        bar.finish(0)
        bar.finish(2)
    states = list(dict.fromkeys(drawn(capsys.readouterr().err)))
    assert states[0] == "natural: pgd-20, pgd-40:  33% 500 of 1,500 images"
    assert states[-1] == "madry: pgd-20: 100% 1,500 of 1,500 images"
    assert "natural: pgd-20, pgd-40:  50% 750 of 1,500 images" in states
    assert any(state.startswith("madry: pgd-20:") and state.endswith("1,250 of 1,500 images") for state in states)


def test_a_quiet_bar_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [case(NATURAL, "fgsm")]
    with SweepBar([Task(cases, [(0, 250)])], [250], cases, quiet=True) as bar:
        bar.finish(0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not can_fork(), reason="workers on the CPU need Linux")
def test_with_several_workers_models_and_attacks_are_named_and_a_second_run_goes_on(
    command: Command, tmp_path: Path
) -> None:
    words = ("--models", "natural,madry", "--transfer", "none", "--examples", "20", "--workers", "2")
    first = command(tmp_path, *words, "--attacks", "fgsm")
    assert first.returncode == 0, first.stderr
    assert {" ".join(state.split()[:2]) for state in drawn(first.stderr)} == {
        "natural: fgsm:",
        "madry: fgsm:",
    }
    second = drawn(command(tmp_path, *words, "--attacks", "fgsm,pgd-20").stderr)
    assert second[0].endswith("40 of 80 images")
    assert second[0].startswith("natural: pgd-20:")
    assert second[-1].endswith("100% 80 of 80 images")


@pytest.mark.parametrize(("quiet", "waits", "said"), [(False, True, "asking\n"), (False, False, ""), (True, True, "")])
def test_what_takes_long_is_said_and_what_does_not_is_not(
    capsys: pytest.CaptureFixture[str], *, quiet: bool, waits: bool, said: str
) -> None:
    with said_if_slow("asking", quiet=quiet, seconds=0.01 if waits else 1000.0):
        if waits:
            time.sleep(0.2)
    assert capsys.readouterr().err == said
