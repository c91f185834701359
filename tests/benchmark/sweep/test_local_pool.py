import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from attacks.errors import InputError
from benchmark.sweep.local_pool import can_fork, run_all, run_map, run_spawned, worker_number

forks = pytest.mark.skipif(not can_fork(), reason="this system cannot fork")
both = pytest.mark.parametrize("workers", [1, pytest.param(2, marks=forks)])


@both
def test_every_task_is_done_once(tmp_path: Path, workers: int) -> None:
    def compute(task: int) -> None:
        (tmp_path / f"{task} {os.getpid()}").touch()

    assert sorted(run_all(9, compute, workers)) == list(range(9))
    done = [path.name.split() for path in tmp_path.iterdir()]
    assert sorted(int(task) for task, _ in done) == list(range(9))
    assert (str(os.getpid()) in {process for _, process in done}) == (workers == 1)


@both
def test_a_map_keeps_the_order(workers: int) -> None:
    assert list(run_map(abs, range(-70, 0), workers)) == list(range(70, 0, -1))


def _leave(_item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@forks
def test_a_map_whose_process_is_killed_is_one_line() -> None:
    with pytest.raises(InputError, match="a worker process was killed"):
        list(run_map(_leave, range(9), 2))


@both
def test_what_a_task_raises_is_raised_and_ends_the_rest(tmp_path: Path, workers: int) -> None:
    def compute(task: int) -> None:
        (tmp_path / str(task)).touch()
        if task == 0:
            raise InputError("expected this")
        time.sleep(0.2)

    with pytest.raises(InputError, match="expected this"):
        list(run_all(99, compute, workers))
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) < 50  # the rest is left undone


@forks
def test_a_defect_shows_where_it_is() -> None:
    class AwkwardError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} {two}")

    def compute(_: int) -> None:
        raise AwkwardError(1, 2)

    with pytest.raises(RuntimeError, match="AwkwardError: 1 2"):
        list(run_all(3, compute, 2))


@forks
def test_a_killed_worker_is_a_line_that_says_so() -> None:
    def compute(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="a worker process was killed"):
        list(run_all(2, compute, 2))


@forks
def test_what_a_killed_worker_left_is_done_by_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compute(task: int) -> None:
        if task in (2, 5):
            with suppress(FileExistsError):
                (tmp_path / f"{task} killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / str(task)).touch()

    assert sorted(run_all(9, compute, 2)) == list(range(9))
    assert len(list(tmp_path.iterdir())) == 9 + 2
    assert "a worker process was killed" in capsys.readouterr().err


@forks
def test_a_task_that_kills_every_worker_is_given_up_after_all_others_are_done(tmp_path: Path) -> None:
    def compute(task: int) -> None:
        if task == 0:
            (tmp_path / f"kill {time.monotonic_ns()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    done: list[int] = []
    with pytest.raises(InputError, match="a worker process was killed"):
        done.extend(run_all(12, compute, 2))
    assert sorted(done) == list(range(1, 12))
    assert len(list(tmp_path.iterdir())) <= 6


@forks
def test_workers_leave_with_their_parent(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, time
from benchmark.sweep.local_pool import run_all

def compute(task):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(600)

list(run_all(2, compute, 2))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[3])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{worker}/stat").exists() and _runs(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process: int) -> bool:
    """Whether a process is more than an entry that nobody has read yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Machine:
    """Does tasks, but for those that a worker cannot: pairs of a task and the number of a worker, None for any."""

    folder: Path
    failing: frozenset[tuple[int | None, int | None]]

    def __call__(self) -> Callable[[int], None]:
        def compute(task: int) -> None:
            here = worker_number()
            if self.failing & {(task, here), (None, here), (task, None)}:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            (self.folder / f"{task} {here}").touch()

        return compute


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that would start afresh are copies of this one, which takes a tenth of the time."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _method: fork)


@forks
@pytest.mark.usefixtures("forked")
def test_a_gpu_that_fails_is_left_out_and_its_task_done_by_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sorted(run_spawned(9, Machine(tmp_path, frozenset({(None, 0)})), 3)) == list(range(9))
    done = [path.name.split() for path in tmp_path.iterdir()]
    assert {int(task) for task, _ in done} == set(range(9))
    assert {worker for _, worker in done} <= {"1", "2"}
    assert "GPU 0 failed and is left out (RuntimeError: CUDA error: an illegal" in capfd.readouterr().err


@forks
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("failing", [{(4, None)}, {(None, 0), (None, 1), (None, 2)}], ids=["one task", "every task"])
def test_what_fails_on_another_gpu_too_is_raised(tmp_path: Path, failing: set[tuple[int | None, int | None]]) -> None:
    machine = Machine(tmp_path, frozenset(failing))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(run_spawned(9, machine, 3))


@forks
@pytest.mark.usefixtures("forked")
def test_the_last_gpu_that_fails_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(run_spawned(4, Machine(tmp_path, frozenset({(None, 0)})), 1))
