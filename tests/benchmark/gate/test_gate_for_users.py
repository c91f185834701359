"""What the gate tells its user: undecided runs, which images fell, how to renew, the screen, files for CI."""

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmark.cli.gate_setup import protocol_of, screening, subject_of
from benchmark.cli.options import Shared
from benchmark.gate.baseline import Settings, read_baseline
from benchmark.gate.canaries import STRONGER
from benchmark.gate.protocol import attack_all
from benchmark.store.diagnosis import Diagnosis, Finding
from benchmark.store.packed import read_packed, write_packed
from benchmark.store.store import Store
from benchmark.suites.models import models_for
from model_zoo.registry import SHIPPED, models_of

Command = Callable[..., subprocess.CompletedProcess[str]]
Gate = Callable[..., subprocess.CompletedProcess[str]]
IMAGES = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A git repository with a baseline of one model, without canaries."""
    folder = tmp_path_factory.mktemp("gate")
    subprocess.run(["git", "init", "-q", folder], check=True)
    words = ("--baseline", "b.json", "--models", "madry", "--examples", IMAGES, "--canaries", "none", "--quiet")
    assert command(folder, "gate", "update", *words).returncode == 0
    return folder


@pytest.fixture
def gate(folder: Path, command: Command) -> Gate:
    """The gate against that baseline, with other weights in the place of the model's."""

    def run(weights: str, *words: object) -> subprocess.CompletedProcess[str]:
        given = ("--models", f"madry={SHIPPED / 'digits' / weights}.safetensors")
        return command(folder, "gate", "--baseline", "b.json", "--quiet", *given, *words)

    return run


def last(run: subprocess.CompletedProcess[str]) -> str:
    return run.stdout.splitlines()[-1]


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--undecided", "pass"], 0), (["--undecided", "fail"], 1)])
def test_images_that_ran_out_beyond_the_tolerance_are_inconclusive(gate: Gate, words: list[str], code: int) -> None:
    run = gate("free", *words)
    assert run.returncode == code
    assert f"| inconclusive: {IMAGES} images: robust accuracy fell by 1.87 points" in run.stdout
    assert last(run).startswith(f"gate {'failed:' if code else 'passed, with'} 1 question inconclusive on all images")


@pytest.mark.parametrize(("words", "code"), [([], 1), (["--undecided", "pass"], 0), (["--undecided", "fail"], 1)])
def test_time_that_is_up_fails_unless_it_may_pass(gate: Gate, words: list[str], code: int) -> None:
    run = gate("free", "--budget", 1e-6, *words)
    assert run.returncode == code
    assert "1 question undecided when the time was up" in last(run)


def test_a_failure_says_which_images_fell_and_a_command_that_records_the_model_anew(
    folder: Path, command: Command
) -> None:
    (folder / "net.py").write_text(NET)
    words = ("--model", "net.py:make", "--checkpoint", SHIPPED / "digits/madry.safetensors", "--quiet")
    more = ("--baseline", "own.json", "--examples", IMAGES, "--canaries", "none")
    assert command(folder, "gate", "update", *words, *more).returncode == 0
    given = [str(SHIPPED / "digits/natural.safetensors") if "madry" in str(word) else word for word in words]
    run = command(folder, "gate", "--baseline", "own.json", *given)
    assert run.returncode == 1
    below = run.stdout.split("\n\n")[1].splitlines()
    fell = _fallen(run.stdout)
    assert below[0].startswith(f"make: {fell} images fell, 0 rose; by class: ")
    assert f"({max(_by_class(below[0]))})" in below[0]
    assert sum(_by_class(below[0])) == fell
    renew = shlex.split(below[1].removeprefix("If that is meant, record it: "))
    assert renew[:2] == ["python", "run_benchmark.py"]
    assert command(folder, *renew[2:], "--quiet").returncode == 0
    assert command(folder, "gate", "--baseline", "own.json", *given).returncode == 0


NET = """
from model_zoo.architectures.registry import build

def make():
    return build("digits-cnn", 10)
"""


def _fallen(out: str) -> int:
    """How many images a model that broke nothing else fell on, by the printed shares of its row."""
    row = next(line for line in out.splitlines() if line.startswith("| make"))
    images, before, now = (float(cell) for cell in row.split("|")[4:7])
    return round(images * (before - now) / 100)


def _by_class(line: str) -> list[int]:
    classes = line.split("by class: ")[1].split(";")[0]
    return [int(part.split("(")[1].rstrip(")")) for part in classes.split(", ")]


def test_the_images_that_fell_are_those_of_the_verdicts(folder: Path, gate: Gate, command: Command) -> None:
    words = ("--baseline", "other.json", "--models", "natural", "--examples", IMAGES, "--canaries", "none", "--quiet")
    assert command(folder, "gate", "update", *words).returncode == 0
    before, now = (
        read_baseline(folder / name).cases[model] for name, model in (("b.json", "madry"), ("other.json", "natural"))
    )
    fell = before.index[before.robust_any & ~now.robust_any]
    line = next(line for line in gate("natural").stdout.splitlines() if line.startswith("madry: "))
    named = [int(word) for word in line.split("; images ")[1].split(" and ")[0].split(", ")]
    assert set(named) <= set(fell.tolist())
    assert len(named) == 10


def test_a_screen_fails_what_is_clear_and_passes_nothing(gate: Gate) -> None:
    bad = gate("natural", "--screen")
    assert (bad.returncode, last(bad)) == (1, "gate failed: madry")
    same = gate("madry", "--screen")
    assert same.returncode == 0
    assert "| open " in same.stdout
    assert "| pass " not in same.stdout
    assert last(same) == "screen only: no clear drop, which is no pass; a run without --screen decides"


@pytest.mark.parametrize("model", ["madry", "natural"])
def test_what_a_screen_breaks_the_gate_breaks_too(tmp_path: Path, model: str) -> None:
    shared = Shared(results_dir=tmp_path, quiet=True)
    protocol = protocol_of(shared, Settings("digits", "autoattack-brief", 0, examples=IMAGES))
    spec = models_for("digits", shared.checkpoint_dir)[model]
    subject = subject_of(protocol, spec, None, shared)
    whole, part = (attack_all(p, [subject], quiet=True)[model].robust_any for p in (protocol, screening(protocol)))
    assert np.all(part[whole])
    assert part.sum() > whole.sum()


@pytest.mark.parametrize(
    ("attack", "steps"), [("pgd-20", 20), ("autoattack-brief", 20), ("autoattack-fast", 20), ("autoattack", 100)]
)
def test_a_screen_is_what_the_attack_does_to_every_image_first(tmp_path: Path, attack: str, steps: int) -> None:
    protocol = protocol_of(Shared(results_dir=tmp_path, quiet=True), Settings("digits", attack, 0, examples=20))
    screen = screening(protocol).attack
    assert (screen.name, screen.steps) == ("pgd-20" if attack == "pgd-20" else "apgd-ce", steps)


def test_the_files_for_ci_are_written_and_nothing_else_is_left_in_the_working_tree(folder: Path, gate: Gate) -> None:
    run = gate("natural", "--sarif", "gate.sarif", "--junit", "gate.xml")
    assert run.returncode == 1
    (found,) = json.loads((folder / "gate.sarif").read_text())["runs"][0]["results"]
    assert (found["ruleId"], found["level"]) == ("robustness/regression", "error")
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "b.json"
    assert "gate update --baseline b.json --models madry" in found["message"]["text"]
    status = ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=all"]
    left = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert (folder / "results/mine/runs/gate").is_dir()
    assert "results" not in left
    assert "gate.sarif" in left


def test_a_baseline_records_its_rules_and_the_drops_that_it_shows(folder: Path, command: Command) -> None:
    words = ("--baseline", "wide.json", "--dataset", "digits", "--models", "madry", "--examples", IMAGES)
    run = command(folder, "gate", "update", *words, "--canaries", "none", "--tolerance", 5, "--quiet")
    assert run.returncode == 0
    assert "of 1 question, at tolerance 5 and alpha 0.01:" in run.stdout
    detects = read_packed(folder / "wide.json").notes["detects"]
    assert [(one["questions"], one["churn"]) for one in detects] == [(1, 0.0), (1, 0.08)]
    assert all(5 < one["80%"] < one["95%"] for one in detects)
    assert f"{detects[0]['80%']:g} points with probability 0.8" in run.stdout
    free = f"madry={SHIPPED / 'digits/free.safetensors'}"
    compared = ("gate", "--baseline", "wide.json", "--quiet", "--models", free)
    assert "no drop beyond 5 points" in command(folder, *compared).stdout
    assert "inconclusive: " in command(folder, *compared, "--tolerance", 1).stdout
    narrower = ("--baseline", "wide.json", "--models", "madry", "--tolerance", 2, "--quiet")
    again = command(folder, "gate", "update", *narrower)
    assert again.returncode == 0
    assert read_baseline(folder / "wide.json").settings.tolerance == 2


@pytest.mark.parametrize("attack", ["pgd-20", *STRONGER])
def test_an_attack_that_is_blind_to_masking_is_never_advised(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    monkeypatch.setattr("benchmark.cli.gate_update.attack_all", blind)
    monkeypatch.setattr("benchmark.cli.gate_update.write_baseline", lambda *_: None)
    words = ("--baseline", "blind.json", "--models", "madry", "--examples", 20, "--attack", attack, "--quiet")
    run = command(folder, "gate", "update", *words)
    assert f"note: {attack} leaves 100.0% of the gradient-masked canary standing" in run.stderr
    advised = run.stderr.split("; ")[-1].split()
    assert attack not in advised
    assert ("use" in advised) == (attack != STRONGER[-1])


def blind(*_arguments: object, **_options: object) -> dict[str, object]:
    """Verdicts of an attack that breaks nothing."""

    class Standing:
        robust_any = correct = np.ones(20, np.bool_)

    return {"canary-masked": Standing()}


def test_recording_a_users_model_attacks_and_obtains_no_other_model_but_canaries(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtained: list[str] = []
    monkeypatch.setattr("benchmark.cli.resolve_models.obtain_checkpoint", lambda spec, *_: obtained.append(spec.name))
    (folder / "net.py").write_text(NET)
    words = ("--baseline", "alone.json", "--model", "net.py:make", "--examples", 20, "--quiet")
    run = command(folder, "gate", "update", *words, "--checkpoint", SHIPPED / "digits/fat.safetensors")
    assert (run.returncode, obtained) == (0, [])
    assert "1 model, 3 canaries" in run.stdout
    names = {"make", "canary-undefended", "canary-robust", "canary-masked"}
    assert set(read_baseline(folder / "alone.json").cases) == names


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [("tolerance", -1.0, "got -1.0 and 0.01"), ("alpha", 1.0, "got 1.0 and 1.0"), ("alpha", "1", "expected alpha in")],
)
def test_rules_of_a_baseline_that_mean_nothing_are_one_line(
    folder: Path, command: Command, name: str, value: object, line: str
) -> None:
    packed = read_packed(folder / "b.json")
    write_packed(replace(packed, notes={**packed.notes, name: value}), folder / "odd")
    run = command(folder, "gate", "--baseline", "odd.json")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert line in run.stderr


def test_a_baseline_of_before_has_the_usual_rules(folder: Path) -> None:
    packed = read_packed(folder / "b.json")
    notes = {name: value for name, value in packed.notes.items() if name not in ("tolerance", "alpha", "detects")}
    write_packed(replace(packed, notes=notes), folder / "before")
    assert read_baseline(folder / "before.json").settings == read_baseline(folder / "b.json").settings


def test_a_normalisation_that_is_not_the_recorded_one_is_refused_both_ways(folder: Path, command: Command) -> None:
    (folder / "net.py").write_text(NET)
    words = ("--model", "net.py:make", "--checkpoint", SHIPPED / "digits/madry.safetensors", "--quiet")
    more = ("--examples", 20, "--canaries", "none", "--attack", "pgd-20")
    given = ("--mean", "0.1", "--std", "0.9")
    assert command(folder, "gate", "update", "--baseline", "with.json", *words, *more, *given).returncode == 0
    assert command(folder, "gate", "update", "--baseline", "without.json", *words, *more).returncode == 0
    assert command(folder, "gate", "--baseline", "with.json", *words, *given).returncode == 0
    forgotten = command(folder, "gate", "--baseline", "with.json", *words)
    assert forgotten.returncode == 2
    assert "model make: expected --mean 0.1 --std 0.9, as in the baseline, got none; give the same" in forgotten.stderr
    added = command(folder, "gate", "--baseline", "without.json", *words, *given)
    assert added.returncode == 2
    assert "expected no --mean and --std, as in the baseline, got --mean 0.1 --std 0.9" in added.stderr


def test_a_model_that_an_attack_is_not_shown_to_work_on_fails_where_that_is_asked(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    words = ("gate", "--baseline", str(folder / "b.json"), "--quiet", "--models", "madry")
    asked = command(tmp_path, *words, "--require-shown")
    assert asked.returncode == 2
    assert "expected a diagnosis of madry, with the weights and the code under test" in asked.stderr
    assert asked.stderr.count("\n") == 1
    identity = models_of("digits", tmp_path)["madry"].identity
    for outcome, code in (("fails", 1), ("passes", 0)):
        checks = (Finding("binarization", outcome, 50.0, 10.0, 1e-9, 1e-8, "words"),)
        found = Diagnosis("madry", identity, "pgd-40, Linf 0.2", 200, 1.0, 1.0, checks)
        Store(tmp_path / "results/mine/runs").write_diagnosis("digits", found)
        files = ("--junit", "gate.xml", "--sarif", "gate.sarif")
        run = command(tmp_path, *words, "--require-shown", *files)
        assert run.returncode == code, run.stderr
        case = ElementTree.parse(tmp_path / "gate.xml").find(".//testcase[@classname='gate.shown']")
        assert case is not None
        assert case.get("name") == "madry"
        results = json.loads((tmp_path / "gate.sarif").read_text())["runs"][0]["results"]
        if code:
            failure = case.find("failure")
            assert failure is not None
            assert failure.get("message", "").startswith("not-shown: pgd-40, Linf 0.2 is not shown to work")
            assert [(one["ruleId"], one["level"]) for one in results] == [("robustness/attack-not-shown", "error")]
            assert last(run) == "gate failed: madry"
            assert command(tmp_path, *words).returncode == 0  # nobody asked
        else:
            assert case.find("failure") is None
            assert results == []
    undecided = replace(found, findings=(Finding("binarization", "cannot-tell", None, None, None, None, "words"),))
    Store(tmp_path / "results/mine/runs").write_diagnosis("digits", undecided)
    run = command(tmp_path, *words, "--require-shown")
    assert run.returncode == 1
    assert "nothing speaks against pgd-40, Linf 0.2 on this model, and nothing for it" in run.stdout
