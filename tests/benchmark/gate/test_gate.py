"""The gate from end to end on digits: what passes, what fails, and in which words."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks import registry
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, Ensemble
from attacks.threat_model import ThreatModel
from benchmark.store.packed import read_packed, write_packed
from benchmark.suites.registry import SUITES
from model_zoo.registry import SHIPPED
from model_zoo.weights.checkpoint import load_state_dict, save_state_dict

Command = Callable[..., subprocess.CompletedProcess[str]]
Gate = Callable[..., subprocess.CompletedProcess[str]]
IMAGES = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A folder with a baseline of one robust model and the three canaries."""
    folder = tmp_path_factory.mktemp("gate")
    words = ("--baseline", "b.json", "--models", "madry", "--examples", IMAGES, "--quiet")
    run = command(folder, "gate", "update", *words, "--results-dir", "first")
    assert (run.returncode, run.stderr) == (0, "")
    return folder


@pytest.fixture
def gate(folder: Path, command: Command, tmp_path: Path) -> Gate:
    """The gate against that baseline, with nothing cached from before."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return command(folder, "gate", "--baseline", "b.json", "--results-dir", tmp_path, "--quiet", *words)

    return run


@pytest.fixture
def plain(folder: Path, command: Command, tmp_path: Path) -> Gate:
    """The same against a baseline of that model without canaries, which are attacked anew in every run."""
    words = ("--baseline", "plain.json", "--models", "madry", "--examples", IMAGES, "--canaries", "none", "--quiet")
    if not (folder / "plain.json").exists():
        assert command(folder, "gate", "update", *words, "--results-dir", "first").returncode == 0

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return command(folder, "gate", "--baseline", "plain.json", "--results-dir", tmp_path, "--quiet", *words)

    return run


def shipped(name: str) -> Path:
    return SHIPPED / "digits" / f"{name}.safetensors"


def rows(run: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], list[str]]:
    """The printed table by model and question."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in run.stdout.splitlines() if "|" in line]
    return {(row[0], row[1]): row[2:] for row in cells[2:]}


def test_an_unchanged_model_passes_before_all_images_were_attacked(gate: Gate) -> None:
    run = gate()
    assert run.returncode == 0
    outcome, seen, before, now, *_ = rows(run)["madry", "regression"]
    assert (outcome, before) == ("pass", now)
    assert int(seen) < IMAGES
    assert run.stdout.endswith("gate passed\n")


def test_an_equally_robust_model_passes_and_a_much_weaker_one_fails(plain: Gate) -> None:
    alike = plain("--models", f"madry={shipped('fat')}")
    assert (alike.returncode, rows(alike)["madry", "regression"][0]) == (0, "pass")
    weaker = plain("--models", f"madry={shipped('cascade')}")
    assert weaker.returncode == 1
    assert "robust accuracy fell by" in rows(weaker)["madry", "regression"][-1]


def test_a_natural_model_in_place_of_a_robust_one_fails_at_the_first_look(gate: Gate) -> None:
    run = gate("--models", f"madry={shipped('natural')}", "--min-robust-acc", 50)
    assert run.returncode == 1
    outcome, seen, *_, why = rows(run)["madry", "regression"]
    assert (outcome, int(seen) < IMAGES / 2) == ("fail", True)
    assert "robust accuracy fell by" in why
    assert "clean accuracy" not in why
    assert rows(run)["madry", "threshold"][0] == "fail"
    assert rows(run)["canary-robust", "canary"][0] == "pass"
    assert run.stdout.endswith("gate failed: madry\n")


def test_a_model_with_one_layer_perturbed_fails(plain: Gate, tmp_path: Path) -> None:
    state = load_state_dict(shipped("madry"))
    name = "conv1.weight"
    noise = torch.randn(state[name].shape, generator=torch.Generator().manual_seed(0))
    save_state_dict({**state, name: state[name] + 0.5 * state[name].std() * noise}, tmp_path / "p.safetensors", {})
    run = plain("--models", f"madry={tmp_path / 'p.safetensors'}")
    assert run.returncode == 1
    assert "robust accuracy fell by" in rows(run)["madry", "regression"][-1]


def test_a_collapsed_model_fails_without_an_attack(plain: Gate, tmp_path: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in load_state_dict(shipped("madry")).items()}
    save_state_dict(state, tmp_path / "zero.safetensors", {})
    run = plain("--models", f"madry={tmp_path / 'zero.safetensors'}")
    assert run.returncode == 1
    outcome, *_, why = rows(run)["madry", "sanity"]
    assert outcome == "fail"
    assert "the model collapsed" in why


MASKED = """
import torch
from pathlib import Path
from model_zoo.architectures.registry import build
from benchmark.suites.registry import SUITES
from model_zoo.weights.checkpoint import load_into, load_state_dict

class Masked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build("digits-cnn", 10)
        load_into(self.net, load_state_dict(Path({checkpoint!r})), source="natural")
    def forward(self, x):
        return {forward}

def madry():
    return Masked()
"""


def test_a_gradient_masked_model_fails_though_it_hides_its_weakness(plain: Gate, tmp_path: Path) -> None:
    masked = MASKED.format(checkpoint=str(shipped("natural")), forward="self.net((8 * x).round() / 8 + 0 * x)")
    (tmp_path / "rounding.py").write_text(masked)
    run = plain("--model", f"{tmp_path}/rounding.py:madry")
    assert run.returncode == 1
    assert "its gradients are masked now (zero-gradients(" in rows(run)["madry", "sanity"][-1]
    assert rows(run)["madry", "regression"][0] == "fail"


def test_large_logits_hide_no_weakness(plain: Gate, tmp_path: Path) -> None:
    masked = MASKED.format(checkpoint=str(shipped("natural")), forward="1e5 * self.net(x)")
    (tmp_path / "large.py").write_text(masked)
    run = plain("--model", f"{tmp_path}/large.py:madry")
    assert run.returncode == 1
    assert rows(run)["madry", "regression"][0] == "fail"


def weaker(run: subprocess.CompletedProcess[str]) -> bool:
    """Whether the gate failed, by the right canary word, and said that the models' numbers mean nothing."""
    failed = [row[-1] for (_, kind), row in rows(run).items() if kind == "canary" and row[0] == "fail"]
    return (
        run.returncode == 1
        and any(why.startswith("the attack became weaker") for why in failed)
        and rows(run)["madry", "regression"][0] == "void"
        and run.stdout.endswith("gate failed: the attack became weaker\n")
    )


def test_fewer_steps_are_caught_by_a_canary(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = ATTACKS["autoattack-brief"]
    assert isinstance(brief.method, Ensemble)
    members = [
        member.with_settings(steps=2) if member.algorithm == "apgd" else member for member in brief.method.members
    ]
    weak = replace(brief, method=Ensemble(members))
    monkeypatch.setattr(registry, "ATTACKS", {**ATTACKS, brief.name: weak})
    told = gate()
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "made with another autoattack-brief: attack members 0 " in told.stderr
    monkeypatch.setattr(AttackSpec, "identity", brief.identity)  # as where the code takes fewer steps than it says
    assert weaker(gate())


def test_a_broken_gradient_is_caught_by_a_canary(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Oracle.loss_and_gradient

    def broken(self: Oracle, x: Tensor, y: Tensor, loss: str, **more: Any) -> tuple[Tensor, Tensor]:
        value, gradient = sound(self, x, y, loss, **more)
        return value, gradient.roll(1, 0)

    monkeypatch.setattr(Oracle, "loss_and_gradient", broken)
    assert weaker(gate())


def test_half_the_epsilon_is_caught_by_a_canary(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = ThreatModel.project

    def halved(self: ThreatModel, x_adv: Tensor, x: Tensor) -> Tensor:
        return sound(replace(self, epsilon=self.epsilon / 2), x_adv, x)

    monkeypatch.setattr(ThreatModel, "project", halved)
    assert weaker(gate())


def passes(run: subprocess.CompletedProcess[str]) -> int:
    return int(run.stdout.split("% of the passes")[0].split()[-1])


def test_verdicts_of_an_earlier_run_spare_the_attack(plain: Gate) -> None:
    assert passes(plain()) > passes(plain())


def test_verdicts_of_a_users_own_code_are_not_cached(plain: Gate, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MASKED.format(checkpoint=str(shipped("madry")), forward="self.net(x)"))
    words = ("--model", f"{tmp_path / 'own'}.py:madry")
    first, second = plain(*words), plain(*words)
    assert (first.returncode, rows(first)["madry", "regression"][0]) == (0, "pass")
    assert passes(first) == passes(second) > 0


def test_an_attack_that_masking_blinds_is_named_when_the_baseline_is_written(tmp_path: Path, command: Command) -> None:
    words = ("--baseline", "b.json", "--models", "madry", "--examples", 20, "--attack", "pgd-20", "--quiet")
    run = command(tmp_path, "gate", "update", *words)
    assert run.returncode == 0
    assert "a masked model would pass this gate" in run.stderr


def test_time_that_is_up_leaves_questions_open_and_says_so(plain: Gate) -> None:
    run = plain("--budget", 1e-6)
    assert (run.returncode, rows(run)["madry", "regression"][0]) == (1, "open")
    assert "undecided when the time was up; give it more --budget" in run.stdout
    run = plain("--budget", 1e-6, "--undecided", "pass")
    assert (run.returncode, rows(run)["madry", "regression"][0]) == (0, "open")
    assert "gate passed, with" in run.stdout


def test_the_same_baseline_is_the_same_bytes_by_the_option_update_too(folder: Path, command: Command) -> None:
    words = ("--update", "--models", "madry", "--examples", IMAGES, "--quiet", "--results-dir", "first")
    assert command(folder, "gate", "--baseline", "twice.json", *words).returncode == 0
    for suffix in (".json", ".bin"):
        assert (folder / f"twice{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()


def test_an_update_of_one_model_leaves_the_others_in_the_baseline(folder: Path, command: Command) -> None:
    for suffix in (".json", ".bin"):
        shutil.copy(folder / f"b{suffix}", folder / f"more{suffix}")
    words = ("--models", "fat", "--quiet", "--results-dir", "first")
    run = command(folder, "gate", "update", "--baseline", "more.json", *words)
    assert (run.returncode, run.stderr) == (0, "")
    assert "1 model, 0 canaries" in run.stdout
    assert "1 other model and 3 canaries stay" in run.stdout
    before, after = (
        {case["model"]: case for case in json.loads((folder / name).read_text())["cases"]}
        for name in ("b.json", "more.json")
    )
    assert list(after) == ["madry", "fat", *(name for name in before if name.startswith("canary-"))]
    assert all(after[name]["key"] == before[name]["key"] for name in before)
    again = command(folder, "gate", "--baseline", "more.json", "--results-dir", "first", "--quiet")
    assert (again.returncode, rows(again)["fat", "regression"][0]) == (0, "pass")


def test_a_baseline_of_a_users_own_model_says_that_it_wants_it(tmp_path: Path, command: Command) -> None:
    own = MASKED.format(checkpoint=str(shipped("madry")), forward="self.net(x)").replace("def madry", "def mine")
    (tmp_path / "own.py").write_text(own)
    words = ("--baseline", "own.json", "--model", "own.py:mine", "--examples", 20, "--quiet")
    assert command(tmp_path, "gate", "update", *words).returncode == 0
    run = command(tmp_path, "gate", "--baseline", "own.json")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "mine is your own model (own.py:mine): give it by --model" in run.stderr
    assert command(tmp_path, "gate", "--baseline", "own.json", "--model", "own.py:mine", "--quiet").returncode == 0


def test_a_baseline_without_the_verdicts_of_its_canaries_is_one_line(folder: Path, command: Command) -> None:
    packed = read_packed(folder / "b.json")
    models = {key: case for key, case in packed.cases.items() if not case.entry.model.startswith("canary-")}
    write_packed(replace(packed, cases=models), folder / "fewer")
    run = command(folder, "gate", "--baseline", "fewer.json")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "expected an attack, and verdicts of models and canaries, got fewer" in run.stderr


def test_a_baseline_of_another_epsilon_says_so_in_a_line(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = SUITES["digits"]
    changed = replace(digits, threat=replace(digits.threat, epsilon=0.3))
    monkeypatch.setitem(SUITES, "digits", changed)
    run = gate()
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "epsilon was 0.2 and is 0.3" in run.stderr
    assert "gate update --models all" in run.stderr


def test_a_threshold_row_reports_the_threshold(plain: Gate) -> None:
    run = plain("--min-robust-acc", 20)
    outcome, _, asked, now, change, *_ = rows(run)["madry", "threshold"]
    assert (outcome, asked) == ("pass", "20.00")
    assert change.startswith(f"{float(now) - 20:+.2f} (")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--baseline", "b.txt"], "a name ending in .json"),
        (["--baseline", "none.json"], "found none"),
        (
            ["--baseline", "b.json", "--attack", "pgd-20"],
            "'--attack'. It is of 'gate update'; leave it out here. See: run_benchmark.py gate --help",
        ),
        (["--baseline", "b.json", "--screen", "--undecided", "fail"], "a screen decides nothing but failures"),
        (["--baseline", "b.json", "--sarif", "nowhere/s.json"], "mend --sarif"),
        (["--baseline", "b.json", "--alpha", "0.9"], "0.9 is not in the range"),
        ([], "Missing option '--baseline'"),
        (["--baseline", "b.json", "update"], "--baseline stands before 'update'"),
        (
            ["--update", "--baseline", "b.json", "--budget", "2"],
            "'--budget'. It is of 'gate'; leave it out here. See: run_benchmark.py gate update --help",
        ),
        (["update", "--baseline", "b.json", "--dataset", "mnist", "--suite", "digits"], "got --dataset mnist"),
        (["update", "--baseline", "b.json", "--dataset", "mnits"], "did you mean 'mnist'"),
        (["update", "--baseline", "b.json", "--norm", "L2"], "--norm L2 needs --epsilon"),
        (["--baseline", "b.json", "--models", "fat"], "model fat is not in the baseline, which has madry"),
        (["--baseline", "b.json", "--models", "madry=none.pt"], "expected a checkpoint at"),
        (["--baseline", "b.json", "--models", "madry="], "expected a checkpoint after '='"),
        (["--baseline", "b.json", "--models", "madry=a.pt,madry=b.pt"], "names madry more than once"),
        (["--baseline", "b.json", "--junit", "nowhere/j.xml"], "mend --junit"),
        (["update", "--baseline", "nowhere/b.json"], "mend --baseline"),
        (["update", "--baseline", "b.json", "--models", "madry=x.safetensors"], "NAME=FILE is for a comparison"),
        (["update", "--baseline", "b.json", "--models", "fat", "--seed", "1"], "which stay as they are"),
        (["update", "--baseline", "b.json", "--models", "fat", "--canaries", "none"], "which stay as they are"),
        (["update", "--baseline", "b.json", "--attack", "foolbox-deepfool"], "third-party attacks draw by place"),
        (["update", "--baseline", "b.json", "--canaries", "natural"], "UNDEFENDED,ROBUST"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, command: Command, words: list[str], line: str) -> None:
    run = command(folder, "gate", *words)
    assert (run.returncode, run.stdout) == (2, "")
    assert line in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_run_repeats_what_masking_says_of_its_attack(tmp_path: Path, command: Command) -> None:
    words = ("--baseline", "b.json", "--quiet")
    made = command(tmp_path, "gate", "update", *words, "--models", "madry", "--examples", 20, "--attack", "pgd-20")
    assert made.returncode == 0
    run = command(tmp_path, "gate", *words)
    assert "Of the baseline: pgd-20 leaves" in run.stdout
    assert "use --attack autoattack-brief when the baseline is recorded anew" in run.stdout
