"""The line that a run begins with says what is run, and a time only where the store can tell it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.cli.outlook import outlook
from benchmark.evaluation.hardware import Hardware
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS

CPU = Hardware(torch.device("cpu"), torch.float32, 250)
NATURAL, MADRY = (next(spec for spec in MODELS if spec.name == name) for name in ("natural", "madry"))


def case(model: ModelSpec, attack: str) -> EvalCase:
    return EvalCase("digits", "digits", "c" * 64, 500, model, model, ATTACKS[attack], ThreatModel("Linf", 0.2), 0)


def store_a_chunk(store: Store, of: EvalCase, seconds: float, device: str = "cpu") -> None:
    index = np.arange(250)
    robust = np.ones(250, dtype=np.bool_)
    verdicts = Verdicts(index, index, index, robust, robust, np.ones(250), np.ones(250))
    timing = {"seconds": seconds, "device": device, "precision": "fp32", "batch_size": 250, "threads": 1, "workers": 1}
    store.write_chunk(case_key(of), (0, 250), verdicts, timing)


GRID = [case(NATURAL, "fgsm"), case(MADRY, "fgsm")]
HEAD = "natural, madry under fgsm: digits, Linf 0.2, 500 images; 2 cases, 0 stored; cpu, fp32"


def test_without_stored_chunks_no_time_is_said(tmp_path: Path) -> None:
    assert outlook(GRID, Store(tmp_path), CPU) == HEAD


@pytest.mark.parametrize(
    ("seconds", "workers", "said"),
    [(100.0, 1, "; about 5 min"), (100.0, 2, ", 2 workers; about 2 min"), (10.0, 1, "; about 30 s")],
)
def test_the_time_of_three_missing_chunks_is_three_times_that_of_a_stored_one(
    tmp_path: Path, seconds: float, workers: int, said: str
) -> None:
    store_a_chunk(Store(tmp_path), GRID[0], seconds)
    assert outlook(GRID, Store(tmp_path), replace(CPU, workers=workers)) == HEAD + said


def test_chunks_of_another_device_or_attack_say_nothing_of_the_time(tmp_path: Path) -> None:
    store_a_chunk(Store(tmp_path), GRID[0], 100, device="a GPU")
    assert outlook(GRID, Store(tmp_path), CPU) == HEAD
    store_a_chunk(Store(tmp_path / "other"), GRID[0], 100)
    assert "about" not in outlook([*GRID, case(MADRY, "cw-linf")], Store(tmp_path / "other"), CPU)


def test_many_models_and_attacks_are_counted(tmp_path: Path) -> None:
    models = [spec for spec in MODELS if "digits" in spec.suites][:4]
    grid = [case(model, attack) for model in models for attack in list(ATTACKS)[:5]]
    assert outlook(grid, Store(tmp_path), CPU).startswith("4 models under 5 attacks: digits, ")
