"""Chunks on the workers of a Ray cluster, or of one that is started here for the time of the sweep.

A worker holds what all chunks share, loads a model when it first needs it, and writes its verdicts to the store itself.
"""

import os
import statistics
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from attacks.errors import InputError

TRIES = 3
"""How many workers a chunk may cost before the sweep gives up on it."""

STRAGGLES = 4
"""Times the usual duration after which an idle worker takes up what another is still at."""

LEAST_S = 60.0
"""No chunk is a straggler sooner."""

POLL_S = 1.0
MiB = 1 << 20


@dataclass(frozen=True)
class Crew:
    """How a Ray sweep is staffed.

    Args:
        workers: how many; each has one CPU, and a share of a GPU.
        gpus_per_worker: may be a fraction.
        shared_bytes: size of what all workers share.
    """

    workers: int
    gpus_per_worker: float
    shared_bytes: int


class Worker:
    """An actor: does one chunk at a time. Its `job` is called once, in the worker's process, and makes `compute`."""

    def __init__(self, job: Callable[[], Callable[[int, bool], None]], folder: str, threads: int) -> None:
        os.chdir(folder)
        torch.set_num_threads(threads)
        self._job = job
        self._compute: Callable[[int, bool], None] | None = None

    def do(self, task: int, is_second: bool) -> Exception | None:
        """What went wrong, in a form that survives the way back."""
        try:
            self._compute = self._compute or self._job()
            self._compute(task, is_second)
        except (InputError, OSError) as error:
            return error
        except Exception:
            return RuntimeError(traceback.format_exc())
        return None


@dataclass
class _Progress:
    """What is left to do and what is being done."""

    waiting: deque[int]
    running: dict[Any, tuple[int, Any, float]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    doubled: set[int] = field(default_factory=set)
    lost: Counter[int] = field(default_factory=Counter)
    durations: list[float] = field(default_factory=list)

    def next(self) -> tuple[int, bool] | None:
        """The next task, and whether another worker is at it already."""
        if self.waiting:
            return self.waiting.popleft(), False
        if not self.durations:
            return None
        late = time.monotonic() - max(LEAST_S, STRAGGLES * statistics.median(self.durations))
        for task, _, started in self.running.values():
            if started < late and task not in self.doubled:
                self.doubled.add(task)
                return task, True
        return None


def run_on_ray(tasks: int, job: Callable[[], Callable[[int, bool], None]], crew: Crew) -> Iterator[int]:
    """Do tasks 0, 1, ..., and yield the number of each when it is done.

    A task whose worker died is done by a new one; one that takes far longer than usual is done by a second worker as
    well, and the first result counts.

    Args:
        job: what a worker needs, as a picklable callable: it returns what does the task of a number, told whether
            another worker is at it already.

    Raises: whatever a task raises; InputError without Ray, or where a task costs several workers.
    """
    ray = _start(crew)
    shared = ray.put(job)
    hire = ray.remote(num_cpus=1, num_gpus=crew.gpus_per_worker, max_restarts=0)(Worker).remote
    arguments = shared, os.getcwd(), torch.get_num_threads()
    idle = deque(hire(*arguments) for _ in range(min(crew.workers, tasks)))
    progress = _Progress(deque(range(tasks)))
    try:
        while len(progress.done) < tasks:
            while idle and (found := progress.next()) is not None:
                worker = idle.popleft()
                progress.running[worker.do.remote(*found)] = found[0], worker, time.monotonic()
            ready, _ = ray.wait(list(progress.running), num_returns=1, timeout=POLL_S)
            for answer in ready:
                task, worker, started = progress.running.pop(answer)
                try:
                    failure = ray.get(answer)
                except ray.exceptions.RayError as error:
                    _give_back(progress, task, error)
                    idle.append(hire(*arguments))
                    continue
                if failure is not None:
                    raise failure
                idle.append(worker)
                progress.durations.append(time.monotonic() - started)
                if task not in progress.done:
                    progress.done.add(task)
                    yield task
    finally:
        for worker in (*idle, *(worker for _, worker, _ in progress.running.values())):
            ray.kill(worker)
        ray.shutdown()


def _give_back(progress: _Progress, task: int, error: Exception) -> None:
    """A worker died: its task is waiting again. Raises: InputError where it has cost too many."""
    progress.lost[task] += 1
    if progress.lost[task] == TRIES:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"a chunk cost {TRIES} workers, maybe for want of memory ({reason}); what was computed is kept: "
            "run the same command again, with fewer --workers or a smaller --batch-size"
        )
    if task not in progress.done:
        progress.waiting.appendleft(task)


def _start(crew: Crew) -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS, or started on this machine alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "--executor ray needs Ray, which is not installed; pip install -e '.[ray]', or leave it out"
        ) from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="ERROR")
    else:
        store = max(80 * MiB, 2 * crew.shared_bytes)
        ray.init(address="local", num_cpus=crew.workers, object_store_memory=store, **quiet)
    return ray
