"""What tests share: one thread, real images, and the command line run in this process or in its own."""

import contextlib
import gzip
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

# Before torch is imported; subprocesses inherit it. The networks here are so small that threads mostly wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from benchmark.cli.app import main
from benchmark.data.datasets import load
from benchmark.data.split import Split
from benchmark.report.score import Judged, SuiteScores, score_suite
from benchmark.stats.shares import Bools
from benchmark.store.packed import Packed
from benchmark.store.shown import ShownCase

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes float64 the default, and what `.float()` gives: so that ours and another implementation round alike."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def command() -> Command:
    """`command(folder, *words)`: the command line in this process, run in a folder, with what it printed."""

    def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
        arguments, out, err = ["run_benchmark.py", *map(str, words)], io.StringIO(), io.StringIO()
        before, code = sys.argv, 0
        try:
            sys.argv = arguments
            with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            sys.argv = before
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def process() -> Command:
    """`process(folder, *words)`: the same as its own process, as a user starts it."""

    def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, str(ROOT / "run_benchmark.py"), *map(str, words)]
        return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The MNIST test images, where the original files lie beside the project."""
    packed = ROOT.parent / "shared/data/mnist"
    if not packed.is_dir():
        pytest.skip("needs the original MNIST files")
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).write_bytes(gzip.decompress((packed / f"{name}.gz").read_bytes()))
    return load("mnist", "test", data_dir=folder)


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The CIFAR-10 test images, where they lie beside the project as class folders."""
    packed = ROOT.parent / "shared/data/cifar10/test.zip"
    if not packed.is_file():
        pytest.skip("needs the CIFAR-10 test images")
    folder = tmp_path_factory.mktemp("data")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder / "cifar10")
    return load("cifar10", "test", data_dir=folder, quiet=True)


Cells = Mapping[tuple[str, str, str], int]
"""(model, attack, source) to how many of the first images are robust."""


@pytest.fixture
def scores_of() -> Callable[..., SuiteScores]:
    """Scores of models on 400 images, 390 correct when clean; keywords give a network where it is not that of all."""

    def make(cells: Cells, **networks: str) -> SuiteScores:
        entries, judged = [], []
        for (model, attack, source), count in cells.items():
            entry = ShownCase(
                key="",
                rank=(0,),
                suite="digits",
                dataset="digits",
                model=model,
                defense="",
                architecture=networks.get(model, "network"),
                checkpoint_sha256="",
                networks={},
                norm="Linf",
                epsilon=0.2,
                attack=attack,
                source_model=source,
                n=400,
                images="",
                seed=0,
                version=1,
                schedule="",
            )
            entries.append(entry)
            judged.append(Judged(np.arange(400), np.zeros(400, dtype=np.int64), _first(390), _first(count)))
        empty, models = score_suite(Packed("digits", "any", {}), "digits"), {entry.model for entry in entries}
        worst = {
            model: np.all(
                [one.robust for entry, one in zip(entries, judged, strict=True) if entry.model == model], axis=0
            )
            for model in models
        }
        shared = {model: np.arange(400) for model in models}
        return replace(empty, entries=entries, judged=judged, worst=dict(sorted(worst.items())), shared=shared)

    return make


def _first(count: int) -> Bools:
    return np.arange(400) < count
