import copy
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attacks.errors import InputError
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split, take
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.speed import contests as speed
from benchmark.speed import training_speed
from benchmark.speed.contests import Achieved, Arena, Entrant, measure, write_speed
from benchmark.speed.peers import PEERS, Attack, Peer
from benchmark.speed.training_speed import Epoch, our_epoch, usual_epoch
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase
from model_zoo.model_spec import ModelSpec

N = 12


def arena(norm: str = "Linf") -> Arena:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(16, 5).requires_grad_(False)
    linear.weight.copy_(torch.randn(5, 16, generator=generator))
    model = nn.Sequential(nn.Flatten(), linear).eval()
    x = torch.rand(N, 1, 4, 4, generator=generator)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    spec = ModelSpec(
        "m",
        suites=("toy",),
        dataset="toy",
        architecture="digits-cnn",
        defense="natural",
        checkpoint="m.pt",
        sha256="0" * 64,
        paper="-",
    )
    case = EvalCase("toy", "toy", "images", N, spec, spec, ATTACKS["pgd-20"], ThreatModel(norm, 0.05), seed=0)
    return Arena(
        case, model, Split("toy", "test", x, y, torch.arange(N), 5), Hardware(torch.device("cpu"), torch.float32, 8)
    )


def rows(table: pd.DataFrame) -> Mapping[str, dict[str, Any]]:
    return {str(row["program"]): dict(row) for _, row in table.iterrows()}


def test_images_are_attacked_in_tasks_as_by_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(*arguments: Any) -> list[Verdicts]:
        sizes.append(len(arguments[4]))
        return evaluate_chunk(*arguments)

    monkeypatch.setattr(speed, "evaluate_chunk", counting)
    small = arena()
    split = take(small.split, np.arange(N).repeat(-(-600 // N))[:600])
    large = replace(small, split=split, hardware=replace(small.hardware, batch_size=400))
    for attack, expected in (("fgsm", [500, 100]), ("foolbox-deepfool", [250, 250, 100])):
        sizes.clear()
        speed._ours(replace(large, case=replace(large.case, attack=ATTACKS[attack])), [ATTACKS[attack]])
        assert sizes == expected


def test_all_programs_of_a_contest_face_the_same_images_and_are_judged() -> None:
    found = rows(measure(arena(), ["pgd-20"], rounds=2, quiet=True))
    ours, foolbox = found["this harness, last iterate too"], found["foolbox"]
    assert 0 < ours["robust_acc"] < 100 * (N - 1) / N
    assert abs(ours["robust_acc"] - foolbox["robust_acc"]) <= 100 / N + 1e-9
    assert foolbox["backwards"] == 20.0
    assert ours["backwards"] == pytest.approx(20 * (N - 1) / N)  # what is misclassified when clean is not attacked
    assert found["this harness"]["backwards"] < ours["backwards"]
    assert found["this harness"]["ratio"] == 1.0


def test_the_floor_makes_the_passes_of_the_attack_and_is_judged_by_nobody() -> None:
    found = rows(measure(arena(), ["pgd-100"], rounds=1, quiet=True))
    floor, ours = found["the model's passes"], found["this harness"]
    assert floor["backwards"] == ours["backwards"]
    assert pd.isna(floor["robust_acc"])


def test_one_trajectory_serves_three_step_counts() -> None:
    found = rows(measure(arena(), ["pgd-20/40/100"], rounds=1, quiet=True))
    alone, together = found.values()
    assert alone["backwards"] == together["backwards"]


def test_who_cannot_take_part_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_: object) -> Attack:
        raise ImportError

    monkeypatch.setattr(speed, "PEERS", {**PEERS, "mi-fgsm": (Peer("torchattacks", ("Linf",), missing),)})
    table = measure(arena(), ["mi-fgsm"], rounds=1, quiet=True)
    assert rows(table)["torchattacks"]["note"] == "not installed: pip install torchattacks"
    text = write_speed(table, "head", tmp_path / "speed")
    assert "not installed: pip install torchattacks" in text
    assert (tmp_path / "speed.csv").is_file()
    monkeypatch.setattr(speed, "PEERS", PEERS)
    assert (
        rows(measure(arena("L2"), ["mi-fgsm"], rounds=1, quiet=True))["torchattacks"]["note"] == "has no attack for L2"
    )


def test_a_program_that_runs_out_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed, "_floor", hungry)
    with pytest.raises(InputError, match="the model's passes: out of memory; give a smaller --batch-size"):
        measure(arena(), ["pgd-100"], rounds=1, quiet=True)


def test_both_trainers_make_the_same_passes_and_leave_the_model_alone() -> None:
    contested = arena()
    before = {name: tensor.clone() for name, tensor in contested.model.state_dict().items()}
    found = rows(measure(contested, ["training"], rounds=1, quiet=True))
    assert found["this harness"]["backwards"] == found["the usual loop"]["backwards"] == 11.0
    for name, tensor in contested.model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("epoch", [our_epoch, usual_epoch])
def test_an_epoch_of_either_trainer_learns(epoch: Epoch, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[nn.Module] = []

    def copied(model: nn.Module) -> nn.Module:
        trained.append(copy.deepcopy(model))
        return trained[-1]

    monkeypatch.setattr(training_speed, "deepcopy", copied)
    contested = arena()
    epoch(contested.model, contested.split, contested.case.threat, contested.hardware)
    before, after = (
        F.cross_entropy(model(contested.split.x), contested.split.y) for model in (contested.model, *trained)
    )
    assert after < before


def test_the_usual_loop_says_that_it_is_for_linf() -> None:
    found = rows(measure(arena("L2"), ["training"], rounds=1, quiet=True))
    assert "Linf" in found["the usual loop"]["note"]


@pytest.mark.parametrize(
    ("model", "words"),
    [(nn.Flatten(), "no parameters"), (nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), "cannot be copied")],
)
def test_a_model_that_cannot_be_trained_is_two_rows_that_say_so(model: nn.Module, words: str, tmp_path: Path) -> None:
    if words == "cannot be copied":
        vars(model)["held"] = threading.Lock()  # which nothing can copy
    table = measure(replace(arena(), model=model.eval()), ["training"], rounds=2, quiet=True)
    assert len(table) == 2
    assert all(words in note for note in table["note"])
    assert words in write_speed(table, "head", tmp_path / "speed")


def test_a_ratio_is_shown_with_its_quartiles_and_its_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken = {"first": [1.0] * 5, "second": [1.0, 2.0, 3.0, 4.0, 9.0]}
    clock = {name: iter(seconds) for name, seconds in taken.items()}

    def timed(entrant: Entrant, outcomes: dict[str, Achieved], _: torch.device) -> float:
        outcomes[entrant.program] = Achieved(1, 2.0, 2.0)
        return next(clock[entrant.program])

    racing = [Entrant(name, lambda: Achieved(1, 2.0, 2.0)) for name in taken]
    monkeypatch.setattr(speed, "_timed", timed)
    monkeypatch.setattr(speed, "_entrants", lambda *_: racing)
    table = measure(arena(), ["pgd-20"], rounds=5, quiet=True)
    assert table.iloc[1][["ratio", *speed.SPREAD]].tolist() == [3.0, 1.0, 2.0, 4.0, 9.0]
    assert "| 3.00 [2.00, 4.00] (1.00 to 9.00) |" in write_speed(table, "head", tmp_path / "speed")
