"""Workers that do not share the driver's memory compute what the driver would have computed."""

import importlib.util
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attacks.errors import InputError
from attacks.registry import ATTACKS
from benchmark.cli.options import Shared
from benchmark.cli.resolve_hardware import choose_hardware, tuned
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.evaluation.hardware import Hardware
from benchmark.store.store import Store
from benchmark.suites.case import case_key
from benchmark.suites.grid import cases
from benchmark.suites.registry import SUITES
from benchmark.sweep import prepare as prepare_module
from benchmark.sweep import ray_pool
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.prepare import load_on, prepare
from benchmark.sweep.ray_pool import RayWorkers, run_on_ray
from benchmark.sweep.recent_models import RecentModels
from benchmark.sweep.sweep import sweep
from benchmark.sweep.tasks import missing_tasks
from benchmark.sweep.worker import MOST_MODELS, Mapped, mapped, run_remote
from model_zoo.registry import MODELS, SHIPPED

Command = Callable[..., subprocess.CompletedProcess[str]]
CPU = Hardware(torch.device("cpu"), torch.float32, 250)
DIGITS = balanced_subset(load("digits", "test", data_dir=Path("unused")), 40, seed=0)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
WORDS = ("--models", "madry,natural", "--attacks", "fgsm,mi-fgsm", "--examples", "40", "--quiet")


def test_processes_that_start_afresh_write_the_same_verdicts(tmp_path: Path) -> None:
    split = balanced_subset(load("digits", "test", data_dir=Path("unused")), 40, seed=0)
    specs = [spec for spec in MODELS if spec.dataset == "digits" and spec.name in ("natural", "madry")]
    attacks = [ATTACKS[name] for name in ("fgsm", "pgd-20")]
    grid = cases(SUITES["digits"], specs, attacks, attacks[:1], split, seed=0)
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    sweep(prepare(lacking_cases(grid, here, CPU), split, here, CPU, checkpoint_dir=tmp_path), here, CPU, quiet=True)

    work = prepare(lacking_cases(grid, there, CPU), split, there, CPU, checkpoint_dir=tmp_path)
    todo, _ = missing_tasks(work.cases, grid, there, CPU)
    done = list(run_remote(todo, work, there, replace(CPU, workers=2), wait=False))
    assert sorted(done) == list(range(len(todo)))
    for case in grid:
        one, other = (store.read(case_key(case), case.n) for store in (here, there))
        assert one is not None
        assert other is not None
        for name, column in vars(one[0]).items():
            np.testing.assert_array_equal(column, getattr(other[0], name))


def test_a_worker_keeps_the_models_that_it_was_asked_for_last() -> None:
    made: list[str] = []

    def make(name: str) -> nn.Module:
        made.append(name)
        return nn.Flatten()

    models = RecentModels(make, MOST_MODELS)
    first = models["source"]
    for target in ("a", "b", "c", "d", "e"):
        assert models["source"] is first  # in use all the time
        assert models[target] is models[target]
        assert len(models) <= MOST_MODELS
    assert made == ["source", "a", "b", "c", "d", "e"]
    assert models["a"] is not first
    assert made[-1] == "a"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every process has its own")
def test_images_are_mapped_by_the_workers_and_not_sent_to_them() -> None:
    images = np.random.default_rng(0).random((50, 3, 8, 8), dtype=np.float32)
    with mapped(images) as there:
        assert isinstance(there, Mapped)
        assert len(pickle.dumps(there)) < 200
        array = there.array()
        assert isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, images)
    np.testing.assert_array_equal(array, images)  # whoever has it keeps it
    with pytest.raises(FileNotFoundError):
        there.array()


def tables(folder: Path) -> dict[str, bytes]:
    """What a sweep shows, but for the timing."""
    files = [
        path
        for path in folder.rglob("*")
        if path.suffix in (".csv", ".md", ".json", ".bin") and path.name != "timing.csv"
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@needs_ray
def test_ray_s_workers_give_the_same_tables_for_a_model_of_one_s_own_too(
    command: Command, process: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from model_zoo.architectures.digits_cnn import DigitsCNN\n\ndef mine():\n    return DigitsCNN()\n"
    )
    own = ("--model", "mine.py:mine", "--checkpoint", str(SHIPPED / "digits/rst.safetensors"))
    assert command(tmp_path, *WORDS, *own, "--results-dir", "local").returncode == 0
    result = process(tmp_path, *WORDS, *own, "--results-dir", "ray", "--executor", "ray", "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert tables(tmp_path / "ray") == tables(tmp_path / "local")


@dataclass(frozen=True)
class Failing:
    """Does tasks, and fails at some of them as often as is asked for: as a machine does, and its process goes on."""

    folder: Path
    failures: dict[int, int]

    def __call__(self) -> Callable[[int], None]:
        def compute(task: int) -> None:
            (self.folder / f"{task} {os.getpid()}").touch()
            if len(list(self.folder.glob(f"{task} *"))) <= self.failures.get(task, 0):
                raise OSError("the device is gone")

        return compute


@needs_ray
def test_a_task_at_which_a_worker_failed_is_done_by_another_one(tmp_path: Path) -> None:
    wanted = RayWorkers(count=2, gpus_per_worker=0.0, shared_bytes=0)
    assert sorted(run_on_ray(5, Failing(tmp_path, {1: 2, 3: 1}), wanted)) == list(range(5))
    assert [len(list(tmp_path.glob(f"{task} *"))) for task in range(5)] == [1, 3, 1, 2, 1]
    with pytest.raises(OSError, match="the device is gone"):
        list(run_on_ray(1, Failing(tmp_path, {0: 9}), wanted))


@needs_ray
def test_workers_that_a_cluster_cannot_have_are_not_waited_for(process: Command, tmp_path: Path) -> None:
    result = process(tmp_path, *WORDS, "--executor", "ray", "--workers", "1", "--gpus-per-worker", "64")
    assert result.returncode == 2
    assert "1 workers of 64 GPUs each do not fit: there are" in result.stderr


def test_without_ray_its_executor_is_a_mistake(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = command(tmp_path, *WORDS, "--executor", "ray")
    assert result.returncode == 2
    assert "--executor ray needs Ray, which is not installed; pip install" in result.stderr


def test_a_share_of_a_gpu_without_ray_is_a_mistake(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, *WORDS, "--gpus-per-worker", "0.5")
    assert result.returncode == 2
    assert "--gpus-per-worker is for --executor ray" in result.stderr


@dataclass
class HeadNode:
    """Ray, as it looks from a machine without a GPU that a cluster's GPUs are asked from."""

    resources: dict[str, float]
    connected: int = 0

    def init(self, **_options: object) -> None:
        self.connected += 1

    def shutdown(self) -> None:
        self.connected -= 1

    def cluster_resources(self) -> dict[str, float]:
        assert self.connected
        return self.resources


@pytest.mark.parametrize(
    ("resources", "words", "workers", "share", "device"),
    [
        ({"CPU": 64, "GPU": 8}, {}, 8, 1.0, "cuda"),
        ({"CPU": 64, "GPU": 8}, {"gpus_per_worker": 0.5}, 16, 0.5, "cuda"),
        ({"CPU": 64, "GPU": 8}, {"gpus_per_worker": 2.0}, 4, 2.0, "cuda"),
        ({"CPU": 64, "GPU": 8}, {"device": "cpu"}, 64, 0.0, "cpu"),
        ({"CPU": 64, "GPU": 8}, {"device": "cuda", "workers": "3"}, 3, 1.0, "cuda"),
        ({"CPU": 64}, {}, 64, 0.0, "cpu"),
    ],
)
def test_devices_are_those_of_the_cluster_and_not_of_the_machine_that_asks(
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, float],
    words: dict[str, Any],
    workers: int,
    share: float,
    device: str,
) -> None:
    cluster = HeadNode(resources)
    monkeypatch.setattr(ray_pool, "_import_ray", lambda: cluster)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _threads: None)
    shared = replace(Shared(), executor="ray", **words)
    found = tuned(choose_hardware(shared), SUITES["digits"], DIGITS, shared)
    assert (found.workers, found.gpus_per_worker, found.device_of_workers.type) == (workers, share, device)
    assert found.device.type == "cpu"
    assert found.batch_size == (1000 if device == "cuda" else 250)
    assert found.is_remote
    assert found.finds_precision == (device == "cuda")
    assert not cluster.connected


def test_a_gpu_that_ray_does_not_have_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "_import_ray", lambda: HeadNode({"CPU": 64}))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    shared = replace(Shared(), executor="ray", device="cuda")
    with pytest.raises(InputError, match="--device cuda: Ray has no GPU; use"):
        tuned(choose_hardware(shared), SUITES["digits"], DIGITS, shared)
    with pytest.raises(InputError, match="--device cpu and --gpus-per-worker 1 contradict"):
        tuned(CPU, SUITES["digits"], DIGITS, replace(shared, device="cpu", gpus_per_worker=1.0))


def test_who_hands_chunks_to_other_processes_holds_one_model_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def loading(*arguments: Any) -> nn.Module:
        model = load_on(*arguments)
        alive.add(model)
        held.append(len(alive))
        return model

    monkeypatch.setattr(prepare_module, "load_on", loading)
    specs = [spec for spec in MODELS if spec.dataset == "digits" and spec.name in ("natural", "madry", "rst")]
    grid = cases(SUITES["digits"], specs, [ATTACKS["fgsm"]], [], DIGITS, seed=0)
    store, remote = Store(tmp_path), replace(CPU, executor="ray", workers=2, finds_batch=True)
    work = prepare(grid, DIGITS, store, remote, checkpoint_dir=tmp_path)
    assert max(held) <= 2  # the old one, while it is replaced
    assert not work.searched
    here = prepare(grid, DIGITS, store, CPU, checkpoint_dir=tmp_path)
    assert all(bool((work.predictions[name] == here.predictions[name]).all()) for name in here.predictions)


def test_the_longest_tasks_of_a_model_come_first(tmp_path: Path) -> None:
    specs = [spec for spec in MODELS if spec.dataset == "digits" and spec.name in ("natural", "madry")]
    attacks = [ATTACKS[name] for name in ("fgsm", "pgd-20", "square", "mi-fgsm")]
    grid = cases(SUITES["digits"], specs, attacks, [], DIGITS, seed=0)
    todo, _ = missing_tasks(grid, grid, Store(tmp_path), CPU)
    order = [(task.cases[0].model.name, task.weight) for task in todo]
    assert [name for name, _ in order] == [name for spec in specs for name in [spec.name] * 4]
    assert all(steps == sorted(steps, reverse=True) for steps in ([s for n, s in order if n == m.name] for m in specs))
