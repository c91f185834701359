"""The sweep: it may be killed at any moment, run in any order and batch, and gives the same tables."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from forked import Forked

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.grid import cases
from benchmark.suites.registry import SUITES
from benchmark.sweep import compute
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.local_pool import can_fork
from benchmark.sweep.prepare import prepare
from benchmark.sweep.sweep import sweep
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS, SHIPPED
from model_zoo.weights.checkpoint import load_state_dict, save_state_dict

WORDS = ("--models", "natural,madry", "--attacks", "pgd-20,pgd-40,cw-linf", "--examples", "300", "--quiet")
CPU = Hardware(torch.device("cpu"), torch.float32, 250)
NATURAL, MADRY = (next(spec for spec in MODELS if spec.name == name) for name in ("natural", "madry"))
NOWHERE = Path("no checkpoints of the user's")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def split() -> Split:
    return balanced_subset(load("digits", "test", data_dir=Path("unused")), 40, seed=0)


@pytest.fixture(scope="module")
def uninterrupted(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `WORDS` that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert command(folder, *WORDS).returncode == 0
    return folder / "results/mine"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What the sweep computes, trajectory by trajectory: the first case's attack and how many images."""
    seen: list[tuple[str, int]] = []

    def counting(group: Sequence[EvalCase], *arguments: Any, **options: Any) -> list[Verdicts]:
        seen.append((group[0].attack.name, len(arguments[3])))
        return evaluate_chunk(group, *arguments, **options)

    monkeypatch.setattr(compute, "evaluate_chunk", counting)
    return seen


def grid(split: Split, models: Sequence[ModelSpec], attacks: Sequence[str], transfer: Sequence[str]) -> list[EvalCase]:
    white, crossed = ([ATTACKS[name] for name in names] for names in (attacks, transfer))
    return cases(SUITES["digits"], models, white, crossed, split, seed=0)


def run(grid: Sequence[EvalCase], split: Split, folder: Path, hardware: Hardware = CPU) -> Store:
    store = Store(folder)
    sweep(
        prepare(lacking_cases(grid, store, hardware), split, store, hardware, checkpoint_dir=NOWHERE),
        store,
        hardware,
        quiet=True,
    )
    return store


def verdicts(store: Store, case: EvalCase) -> Verdicts:
    stored = store.read(case_key(case), case.n)
    assert stored is not None
    return stored[0]


def assert_same(got: Verdicts, expected: Verdicts) -> None:
    for name in vars(expected):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)


def contents(results: Path) -> dict[str, object]:
    """Everything written, but for what differs from run to run: timing.csv, and the timing inside of each chunk.

    Temporary files, which a killed run may leave behind, are nobody's results.
    """
    written: dict[str, object] = {}
    files = (path for path in results.rglob("*") if path.is_file() and path.suffix != ".tmp")
    for path in (path for path in files if path.name != "timing.csv"):
        name = str(path.relative_to(results))
        if path.suffix == ".parquet":  # KEY/START-STOP.CHECKSUM.parquet
            assert name.rsplit(".", 2)[0] not in written, "a chunk was written twice"
            written[name.rsplit(".", 2)[0]] = pq.read_table(path).to_pydict()
        else:
            written[name] = path.read_bytes()
    return written


# Resuming


def test_a_finished_sweep_computes_and_writes_nothing_again(
    split: Split, tmp_path: Path, calls: list[tuple[str, int]]
) -> None:
    work = grid(split, [NATURAL, MADRY], ["fgsm", "pgd-20"], ["fgsm"])
    run(work, split, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(calls) == 6
    run(work, split, tmp_path)
    assert len(calls) == 6
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_only_what_is_new_is_computed(split: Split, tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    run(grid(split, [NATURAL], ["fgsm"], []), split, tmp_path)
    calls.clear()
    run(grid(split, [NATURAL, MADRY], ["fgsm", "mi-fgsm"], []), split, tmp_path)
    assert calls == [("mi-fgsm", 40), ("mi-fgsm", 40), ("fgsm", 40)]


def test_one_trajectory_serves_every_step_count(split: Split, tmp_path: Path, calls: list[tuple[str, int]]) -> None:
    work = grid(split, [MADRY], ["pgd-40", "pgd-20"], [])
    together = run(work, split, tmp_path / "together")
    assert calls == [("pgd-20", 40)]
    for case in work:
        alone = run([case], split, tmp_path / case.attack.name)
        assert_same(verdicts(together, case), verdicts(alone, case))


def test_a_sweep_that_was_stopped_between_chunks_goes_on_there(
    split: Split, tmp_path: Path, calls: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = grid(split, [NATURAL, MADRY], ["fgsm", "mi-fgsm"], ["fgsm"])
    expected = run(work, split, tmp_path / "uninterrupted")

    def stopping(group: Sequence[EvalCase], *arguments: Any, **options: Any) -> list[Verdicts]:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append((group[0].attack.name, len(arguments[3])))
        return evaluate_chunk(group, *arguments, **options)

    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(compute, "evaluate_chunk", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(work, split, tmp_path / "stopped")
    store = run(work, split, tmp_path / "stopped")
    assert len(calls) == 6
    for case in work:
        assert_same(verdicts(store, case), verdicts(expected, case))


@pytest.mark.parametrize("lost", ["pgd-20", "pgd-40"])
def test_one_lost_member_of_a_trajectory_is_computed_again_to_the_same_verdicts(
    split: Split, tmp_path: Path, lost: str
) -> None:
    work = grid(split, [MADRY], ["pgd-20", "pgd-40"], [])
    store = run(work, split, tmp_path)
    expected = {case.attack.name: verdicts(store, case) for case in work}
    (case,) = (case for case in work if case.attack.name == lost)
    for path in (tmp_path / "cases" / case_key(case)).glob("*.parquet"):
        path.unlink()
    run(work, split, tmp_path)
    for case in work:
        assert_same(verdicts(store, case), expected[case.attack.name])


def test_a_damaged_chunk_is_named_and_computed_again_to_the_same_tables(command: Command, tmp_path: Path) -> None:
    words = ("--models", "natural,madry", "--attacks", "fgsm", "--examples", "40", "--transfer", "none")
    assert command(tmp_path, *words).returncode == 0
    expected = contents(tmp_path / "results/mine")
    path = next((tmp_path / "results/mine").rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    again = command(tmp_path, *words)
    assert again.returncode == 0
    assert path.name in again.stderr
    assert "damaged" in again.stderr
    assert contents(tmp_path / "results/mine") == expected


# Interrupted equals uninterrupted


def kill_after(chunks: int, folder: Path) -> int:
    """Start the real command line, SIGKILL it when so many chunks are there, and say how many there were then."""
    with Forked(folder, *WORDS) as running:
        deadline = time.monotonic() + 60
        while len(list(folder.rglob("*.parquet"))) < chunks and running.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.kill()
        assert running.wait() == -signal.SIGKILL, "it ended before it could be killed"
    return len(list(folder.rglob("*.parquet")))


def test_a_killed_run_continues_to_the_same_bytes_as_one_that_was_not(
    command: Command, uninterrupted: Path, tmp_path: Path
) -> None:
    total = len(list(uninterrupted.rglob("*.parquet")))
    assert total == 2 * 8  # chunks x cases
    left = [kill_after(chunks, tmp_path) for chunks in (1, 6)]
    assert 1 <= left[0] < left[1] < total
    assert command(tmp_path, *WORDS).returncode == 0
    assert contents(tmp_path / "results/mine") == contents(uninterrupted)


def test_neither_the_order_of_models_and_attacks_nor_asking_bit_by_bit_changes_a_byte(
    command: Command, uninterrupted: Path, tmp_path: Path
) -> None:
    for attacks in ("pgd-40", "cw-linf,pgd-20"):
        words = ("--models", "madry,natural", "--attacks", attacks, "--examples", "300", "--quiet")
        assert command(tmp_path, *words).returncode == 0
    assert contents(tmp_path / "results/mine") == contents(uninterrupted)


def test_another_batch_size_flips_less_than_one_verdict_in_a_thousand(
    command: Command, uninterrupted: Path, tmp_path: Path
) -> None:
    assert command(tmp_path, *WORDS, "--batch-size", "64").returncode == 0
    flipped = total = 0
    for path in uninterrupted.rglob("*.parquet"):
        (other,) = tmp_path.rglob(f"{path.parent.name}/{path.name.split('.')[0]}.*.parquet")
        for reading in ("robust_any", "robust_last"):
            pair = [pq.read_table(file)[reading].to_numpy() for file in (path, other)]
            flipped, total = flipped + int((pair[0] != pair[1]).sum()), total + len(pair[0])
    assert total == 8 * 2 * 300
    assert flipped <= total / 1000


# What the attacks show


def test_more_steps_of_pgd_never_make_an_image_robust_again(uninterrupted: Path) -> None:
    store, split = Store(uninterrupted / "runs"), load("digits", "test", data_dir=Path("unused"))
    part = balanced_subset(split, 300, seed=0)
    suite = SUITES["digits"]
    attacks = [attack for attack in suite.attacks if attack.name in ("pgd-20", "pgd-40")]
    few, many = (verdicts(store, case) for case in cases(suite, [MADRY], attacks, [], part, seed=0))
    assert not (many.robust_any & ~few.robust_any).any()
    assert many.robust_any.sum() < few.robust_any.sum()
    for shown in (few, many):
        assert shown.robust_last is not None
        assert not (shown.robust_any & ~shown.robust_last).any()
        assert not (shown.robust_last & ~shown.correct).any()


def test_transfer_from_the_same_weights_is_the_white_box_attack(split: Split, tmp_path: Path) -> None:
    weights = load_state_dict(SHIPPED / NATURAL.checkpoint)
    sha256 = save_state_dict(weights, tmp_path / "twin.safetensors", {"twin": "yes"})
    assert sha256 != NATURAL.sha256
    twin = replace(NATURAL, name="twin", checkpoint="twin.safetensors", sha256=sha256)
    work = grid(split, [NATURAL, twin], ["pgd-20"], ["pgd-20"])
    store = Store(tmp_path / "runs")
    sweep(prepare(lacking_cases(work, store, CPU), split, store, CPU, checkpoint_dir=tmp_path), store, CPU, quiet=True)
    shown = {case.cell: verdicts(store, case) for case in work}
    white, transferred = shown["natural", "pgd-20", ""], shown["natural", "pgd-20", "twin"]
    assert white.robust_last is not None
    assert transferred.robust_last is not None
    np.testing.assert_array_equal(white.robust_last, transferred.robust_last)
    np.testing.assert_array_equal(white.robust_any, transferred.robust_any)


def test_transfer_is_crafted_on_the_source_and_judged_on_the_target(split: Split, tmp_path: Path) -> None:
    shown = {}
    for target, source in ((NATURAL, MADRY), (NATURAL, NATURAL), (MADRY, MADRY)):
        threat = ThreatModel("Linf", 0.2)
        case = EvalCase("digits", "digits", split.digest, 40, target, source, ATTACKS["pgd-20"], threat, 0)
        shown[target.name, source.name] = verdicts(run([case], split, tmp_path), case)
    transferred = shown["natural", "madry"]
    np.testing.assert_array_equal(transferred.prediction, shown["natural", "natural"].prediction)
    robust = {names: int(result.robust_any.sum()) for names, result in shown.items()}
    assert robust["natural", "natural"] < robust["natural", "madry"]
    assert (transferred.robust_any != shown["madry", "madry"].robust_any).any()


def test_images_misclassified_when_clean_are_not_robust_and_cost_nothing(uninterrupted: Path) -> None:
    wrong = 0
    for path in uninterrupted.rglob("*.parquet"):
        table = {name: column.to_numpy() for name, column in zip(*_columns(path), strict=True)}
        missed = table["label"] != table["prediction"]
        wrong += int(missed.sum())
        for name in ("robust_any", "robust_last", "forwards", "backwards"):
            assert not table[name][missed].any()
        assert table["forwards"][~missed].all()
    assert wrong > 0


def _columns(path: Path) -> tuple[list[str], list[Any]]:
    table = pq.read_table(path)
    return table.column_names, table.columns


# Memory


def test_out_of_memory_halves_the_batch_and_changes_nothing(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = grid(split, [MADRY], ["pgd-20", "mi-fgsm"], [])
    expected = run(work, split, tmp_path / "expected")
    sizes: list[int] = []

    def short_of_memory(*arguments: Any, **options: Any) -> list[Verdicts]:
        hardware: Hardware = arguments[6]
        sizes.append(hardware.batch_size)
        if hardware.batch_size > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if hardware.batch_size > 16:
            torch.empty(1 << 60, dtype=torch.uint8)  # more than any processor addresses
        return evaluate_chunk(*arguments, **options)

    monkeypatch.setattr(compute, "evaluate_chunk", short_of_memory)
    store = run(work, split, tmp_path / "short", replace(CPU, batch_size=40))
    assert sizes == [40, 20, 10, 10]  # the smaller batch is kept for the next trajectory
    assert "batches of 10" in capsys.readouterr().err
    for case in work:
        got, want = verdicts(store, case), verdicts(expected, case)
        np.testing.assert_array_equal(got.robust_any, want.robust_any)
        assert got.robust_last is not None
        np.testing.assert_array_equal(got.robust_last, want.robust_last)
    stored = store.read(case_key(work[0]), 40)
    assert stored is not None
    assert stored[1][0]["batch_size"] == 10


def test_out_of_memory_with_one_image_is_the_users_to_mend(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_arguments: Any, **_options: Any) -> list[Verdicts]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compute, "evaluate_chunk", out_of_memory)
    with pytest.raises(ValueError, match="out of memory with a single image"):
        run(grid(split, [MADRY], ["fgsm"], []), split, tmp_path)


def test_transfer_is_crafted_on_the_sources_and_on_nothing_else(split: Split) -> None:
    trades = replace(MADRY, name="trades-b6", sha256="1" * 64)
    models = [NATURAL, MADRY, trades]
    attack = [ATTACKS["fgsm"]]
    crossed = [
        case
        for case in cases(SUITES["digits"], models, attack, attack, split, seed=0, sources=[NATURAL])
        if case.is_transfer
    ]
    assert [(case.model.name, case.source.name) for case in crossed] == [("madry", "natural"), ("trades-b6", "natural")]


@pytest.mark.skipif(not can_fork(), reason="this system cannot fork")
def test_the_number_of_workers_changes_nothing(split: Split, tmp_path: Path) -> None:
    work = grid(split, [NATURAL, MADRY], ["fgsm", "mi-fgsm", "pgd-20"], ["fgsm"])
    run(work, split, tmp_path / "one")
    run(work, split, tmp_path / "two", replace(CPU, workers=2))
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
