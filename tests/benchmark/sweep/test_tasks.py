"""A task is several chunks: of the same images whatever is stored, as large as the batch asks for, stored singly."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attacks.registry import ATTACKS, attack_spec
from attacks.threat_model import ThreatModel
from benchmark.cli.rejudge import rejudge_case
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware, auto_batch_size
from benchmark.store.chunk import Range, chunk_ranges
from benchmark.store.images import image_files, unpack_images
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.grid import cases
from benchmark.suites.registry import SUITES
from benchmark.sweep import compute
from benchmark.sweep.compute import compute_task
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.local_pool import can_fork
from benchmark.sweep.prepare import prepare
from benchmark.sweep.sweep import sweep
from benchmark.sweep.tasks import TASKS_A_WORKER, all_tasks, missing_tasks
from model_zoo.load import load_model
from model_zoo.registry import MODELS

CPU = Hardware(torch.device("cpu"), torch.float32, 250)
LARGE = replace(CPU, batch_size=300)
"""Tasks of two chunks, of which some images take the places of others."""
NATURAL, MADRY = (next(spec for spec in MODELS if spec.name == name) for name in ("natural", "madry"))
N = 500
TIMING = {"seconds": 1.0}


@pytest.fixture(scope="module")
def split() -> Split:
    return balanced_subset(load("digits", "test", data_dir=Path("unused")), N, seed=0)


@pytest.fixture(scope="module")
def work(split: Split) -> list[EvalCase]:
    momentum = ATTACKS["mi-fgsm"].with_settings(name="mi-fgsm-3", steps=3)
    attacks = [attack_spec("pgd-3"), attack_spec("pgd-6"), momentum]
    return cases(SUITES["digits"], [NATURAL, MADRY], attacks, [], split, seed=0)


@pytest.fixture(scope="module")
def undisturbed(work: Sequence[EvalCase], split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the cases, computed in tasks of two chunks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(work, split, folder, LARGE)
    return folder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """What the sweep attacks: of each task the model, the last attack, and how many images."""
    seen: list[tuple[str, str, int]] = []

    def counting(group: Sequence[EvalCase], *arguments: Any, **options: Any) -> list[Verdicts]:
        seen.append((group[0].model.name, group[-1].attack.name, len(arguments[3])))
        return evaluate_chunk(group, *arguments, **options)

    monkeypatch.setattr(compute, "evaluate_chunk", counting)
    return seen


def run(work: Sequence[EvalCase], split: Split, folder: Path, hardware: Hardware) -> Store:
    store = Store(folder)
    prepared = prepare(lacking_cases(work, store, hardware), split, store, hardware, checkpoint_dir=folder)
    sweep(prepared, store, hardware, run=work, quiet=True)
    return store


def contents(folder: Path) -> dict[str, object]:
    """All columns of all chunks, and the bytes of what else was written."""
    written: dict[str, object] = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        is_chunk = path.suffix == ".parquet"
        name = str(path.relative_to(folder))
        written[name.split(".")[0] if is_chunk else name] = (
            pq.read_table(path).to_pydict() if is_chunk else path.read_bytes()
        )
    return written


def case(attack: str, n: int = 2100, **changes: Any) -> EvalCase:
    of = EvalCase("digits", "digits", "c" * 64, n, MADRY, MADRY, ATTACKS[attack], ThreatModel("Linf", 0.2), 0)
    return replace(of, **changes)


def nothing(chunk: Range) -> Verdicts:
    """Verdicts of a chunk that say nothing."""
    count = chunk[1] - chunk[0]
    whole, real, yes = np.zeros(count, np.int64), np.zeros(count), np.ones(count, np.bool_)
    return Verdicts(whole, whole, whole, yes, yes, real, real)


# What a task is made of


@pytest.mark.parametrize("keeps_images", [False, True])
def test_tasks_are_of_the_same_chunks_whatever_is_stored(tmp_path: Path, *, keeps_images: bool) -> None:
    hardware = replace(CPU, batch_size=700, workers=2, keeps_images=keeps_images)
    grid = [case(name) for name in ("pgd-20", "pgd-40", "fgsm")]
    whole = {chunks for task in all_tasks(grid, grid, hardware) for chunks in [tuple(task.chunks)]}
    assert sorted(len(chunks) for chunks in whole) == [3, 3, 3]
    for draw in map(random.Random, range(12)):
        store = Store(tmp_path / str(draw.random()))
        store.open()
        for one in grid:
            for chunk in draw.sample(chunk_ranges(one.n), draw.randrange(10)):
                store.write_chunk(case_key(one), chunk, nothing(chunk), TIMING)
        lacking = lacking_cases(grid, store, hardware)
        todo, images = missing_tasks(lacking, grid, store, hardware)
        assert {tuple(task.chunks) for task in todo} <= whole
        absent = [store.absent(case_key(one), one.n) for one in grid]
        for one, chunks in zip(grid, absent, strict=True):
            held = {chunk for task in todo if one in task.cases for chunk in task.chunks}
            assert set(chunks) <= held
        if not keeps_images:
            assert sum(images) == sum(stop - start for chunks in absent for start, stop in chunks)


@pytest.mark.parametrize("batch_size", [1, 64, 250, 251, 1000, 2048, 10**8])
@pytest.mark.parametrize("workers", [1, 8])
def test_a_task_holds_the_batch_that_is_asked_for_and_no_chunk_more(batch_size: int, workers: int) -> None:
    grid = [case("pgd-20"), case("autoattack")]
    for task in all_tasks(grid, grid, replace(CPU, batch_size=batch_size, workers=workers)):
        start, stop = task.images
        assert stop - start < batch_size + 250
        assert stop - start >= min(batch_size, 2100) or stop == 2100


@pytest.mark.parametrize(
    "alone",
    [case("foolbox-deepfool"), case("pgd-20", model=replace(MADRY, randomized=True)), case("autoattack-reference")],
)
def test_what_draws_for_a_batch_is_computed_chunk_by_chunk(alone: EvalCase) -> None:
    assert all(len(task.chunks) == 1 for task in all_tasks([alone], [alone], replace(CPU, batch_size=2048)))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_batch_size_that_nobody_asked_for_leaves_no_worker_waiting_long(workers: int) -> None:
    grid = [case(name, 10_000, model=spec) for name in ("fgsm", "pgd-20", "autoattack") for spec in (NATURAL, MADRY)]
    hardware = replace(CPU, batch_size=1000, workers=workers, finds_batch=True)
    tasks = all_tasks(grid, grid, hardware)
    share = sum(task.weight for task in tasks) / workers
    for task in tasks:
        assert len(task.chunks) == 1 or task.weight <= share / TASKS_A_WORKER or workers == 1
    by_attack = {task.cases[0].attack.name: len(task.chunks) for task in reversed(tasks)}
    assert by_attack["fgsm"] == by_attack["pgd-20"] == 4
    assert by_attack["autoattack"] == (4 if workers < 8 else 2)
    assert all_tasks(grid[:1], grid, hardware) == [task for task in tasks if task.cases[0] == grid[0]]


def test_a_cpu_takes_a_chunk_and_a_gpu_more_where_nobody_asks() -> None:
    assert [auto_batch_size(torch.device(name)) for name in ("cpu", "cuda", "cuda:1", "meta")] == [250, 1000, 1000, 250]


# What is computed and stored


def test_the_batch_is_as_large_as_was_asked_for(work: Sequence[EvalCase], split: Split, tmp_path: Path) -> None:
    store = Store(tmp_path)
    (one,) = (some for some in work if some.cell[:2] == ("madry", "mi-fgsm-3"))
    prepared = prepare([one], split, store, LARGE, checkpoint_dir=tmp_path)
    steps: list[int] = []
    for task in all_tasks([one], [one], LARGE):
        compute_task(task, prepared, store, LARGE, wait=False, advance=steps.append)
    assert steps[0] == 300
    stored = store.read(case_key(one), N)
    assert stored is not None
    assert [timing["task"] for timing in stored[1]] == [N, N]
    assert [timing["batch_size"] for timing in stored[1]] == [300, 300]
    assert stored[1][0]["seconds"] == stored[1][1]["seconds"] > 0


def test_larger_tasks_flip_less_than_one_verdict_in_a_thousand(
    work: Sequence[EvalCase], split: Split, tmp_path: Path, undisturbed: Path
) -> None:
    small, large = run(work, split, tmp_path, CPU), Store(undisturbed)
    flipped = total = 0
    for one in work:
        of_small, of_large = (store.read(case_key(one), N) for store in (small, large))
        assert of_small is not None
        assert of_large is not None
        np.testing.assert_array_equal(of_small[0].index, of_large[0].index)
        for reading in ("any", "last"):
            flipped += int((of_small[0].robust(reading) != of_large[0].robust(reading)).sum())
            total += N
    assert total == 6 * 2 * N
    assert flipped <= total / 1000


@pytest.mark.parametrize("stored", [1, 3, 5])
def test_a_task_that_was_stopped_between_its_chunks_is_the_only_one_computed_again(
    stored: int,
    work: Sequence[EvalCase],
    split: Split,
    tmp_path: Path,
    undisturbed: Path,
    computed: list[tuple[str, str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = Store.write_chunk, list[str]()

    def stopping(self: Store, key: str, *arguments: Any) -> None:
        if len(written) == stored:
            raise KeyboardInterrupt
        write(self, key, *arguments)
        written.append(key)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_chunk", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(work, split, tmp_path, LARGE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(before) == stored
    interrupted = len(computed)
    run(work, split, tmp_path, LARGE)
    assert len(computed) == len(set(computed)) + 1 == 5
    assert computed[interrupted] == computed[interrupted - 1]
    assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}.items()
    assert contents(tmp_path) == contents(undisturbed)


@pytest.mark.skipif(not can_fork(), reason="this system cannot fork")
def test_the_number_of_workers_changes_nothing_in_tasks_of_several_chunks(
    work: Sequence[EvalCase], split: Split, tmp_path: Path, undisturbed: Path
) -> None:
    run(work, split, tmp_path, replace(LARGE, workers=2))
    assert contents(tmp_path) == contents(undisturbed)


def test_chunks_of_smaller_tasks_are_kept_and_the_rest_of_the_task_computed(
    work: Sequence[EvalCase], split: Split, tmp_path: Path, computed: list[tuple[str, str, int]]
) -> None:
    one = work[:1]
    store = run(one, split, tmp_path, CPU)
    kept, lost = (path for _, path in store.chunks(case_key(one[0])))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    computed.clear()
    run(one, split, tmp_path, LARGE)
    assert computed == [("natural", "pgd-3", N)]
    assert kept.stat().st_mtime_ns == before
    assert not store.absent(case_key(one[0]), N)


def test_out_of_memory_halves_the_batch_and_leaves_the_task_as_it_is(
    work: Sequence[EvalCase], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []

    def short_of_memory(*arguments: Any, **options: Any) -> list[Verdicts]:
        hardware: Hardware = arguments[6]
        sizes.append((len(arguments[4]), hardware.batch_size))
        if hardware.batch_size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate_chunk(*arguments, **options)

    monkeypatch.setattr(compute, "evaluate_chunk", short_of_memory)
    run(work[:3], split, tmp_path, LARGE)
    assert sizes == [(N, 300), (N, 150), (N, 75), (N, 75)]


def test_images_of_a_task_are_kept_chunk_by_chunk(work: Sequence[EvalCase], split: Split, tmp_path: Path) -> None:
    (one,) = (some for some in work if some.cell[:2] == ("madry", "mi-fgsm-3"))
    store = run([one], split, tmp_path, replace(LARGE, keeps_images=True))
    files = dict(image_files(tmp_path / "cases" / case_key(one)))
    assert list(files) == chunk_ranges(N)
    index = np.concatenate([unpack_images(path)["index"] for path in files.values()])
    np.testing.assert_array_equal(index, split.index.numpy())
    result = rejudge_case(store, case_key(one), load_model(MADRY, tmp_path, classes=10))
    assert (result.images, result.changed, result.are_all) == (N, 0, True)


@pytest.mark.skipif(not can_fork(), reason="this system cannot fork")
@pytest.mark.parametrize(("batch_size", "said"), [(500, "fewer tasks (1) than there are workers (2)"), (250, "")])
def test_a_batch_that_leaves_workers_idle_is_said(
    work: Sequence[EvalCase],
    split: Split,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batch_size: int,
    said: str,
) -> None:
    hardware, store = replace(CPU, batch_size=batch_size, workers=2), Store(tmp_path)
    prepared = prepare(lacking_cases(work[:1], store, hardware), split, store, hardware, checkpoint_dir=tmp_path)
    sweep(prepared, store, hardware, run=work[:1])
    notes = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert len(notes) == bool(said)
    assert said in "".join(notes)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As for all tiny images: what is counted here does not gain by a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
