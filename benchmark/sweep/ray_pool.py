"""Chunks on the workers of a Ray cluster, or of one that is started here for the time of the sweep.

A worker holds what all chunks share, loads a model when it first needs it, and writes its verdicts to the store itself.
"""

import functools
import importlib
import os
import statistics
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from attacks.errors import InputError
from benchmark.evaluation.hardware import workers_on_one_gpu

TRIES = 3
"""How many workers a chunk may cost before the sweep gives up on it."""

STRAGGLES = 4
"""Times the usual duration after which an idle worker takes up what another is still at."""

LEAST_S = 60.0
"""No chunk is a straggler sooner."""

POLL_S = 1.0
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Of Ray, unless the environment says otherwise: it reports nothing, and its workers run at the driver's priority."""
MiB = 1 << 20


@dataclass(frozen=True)
class Crew:
    """How a Ray sweep is staffed.

    Args:
        workers: how many; each has one CPU, and a share of a GPU.
        gpus_per_worker: may be a fraction.
        shared_bytes: size of what all workers share.
        module: what a worker imports while it waits for its first chunk.
    """

    workers: int
    gpus_per_worker: float
    shared_bytes: int
    module: str = __name__


class _Team(NamedTuple):
    """Ray, how to hire a worker, and those that are hired."""

    ray: Any
    hire: Callable[[], Any]
    workers: list[Any]


_early: "list[Future[_Team]]" = []
"""A team that is being hired; taken out by the sweep that it is for."""


def start_early(crew: Crew) -> None:
    """Start Ray and the workers in the background, while this process goes on. Raises: InputError without Ray."""
    _import_ray()
    if not _early:
        _early.append(Future())
        threading.Thread(target=_start_and_stay, args=(crew, _early[0]), daemon=True).start()


def _start_and_stay(crew: Crew, team: "Future[_Team]") -> None:
    try:
        team.set_result(_start(crew))
    except BaseException as error:  # also SystemExit, or the sweep would wait for ever
        team.set_exception(error)
    threading.Event().wait()  # Ray's processes end with the thread that started them


def let_go() -> None:
    """Have the team that is being hired end as soon as it is there: no sweep takes it up."""
    while _early:
        _early.pop().add_done_callback(_dismiss)


def _dismiss(hired: "Future[_Team]") -> None:
    if hired.exception() is None:
        team = hired.result()
        for worker in team.workers:
            team.ray.kill(worker)
        team.ray.shutdown()


class Worker:
    """An actor: does one chunk at a time. The job is called once, in the worker's process, and makes `compute`."""

    def __init__(self, folder: str, threads: int, module: str) -> None:
        os.chdir(folder)
        torch.set_num_threads(threads)
        importlib.import_module(module)
        self._compute: Callable[[int, bool], None] | None = None

    def do(self, job: list[Any], task: int, is_second: bool) -> Exception | None:
        """What went wrong, in a form that survives the way back.

        Args:
            job: a reference to it, in a list so that Ray does not fetch it again for every chunk.
        """
        import ray

        try:
            self._compute = self._compute or ray.get(job[0])()
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

    A task whose worker died, or failed as a machine does, is done by a new one; one that takes far longer than usual is
    done by a second worker as well, and the first result counts.

    Args:
        job: what a worker needs, as a picklable callable: it returns what does the task of a number, told whether
            another worker is at it already.

    Raises: whatever a task raises, other failures than InputError where several workers had them; InputError without
        Ray, where this machine cannot hold such workers, or where several died at a task.
    """
    ray, hire, workers = _early.pop().result() if _early else _start(crew)
    shared = [ray.put(job)]
    idle = deque(workers)
    progress = _Progress(deque(range(tasks)))
    try:
        while len(progress.done) < tasks:
            while idle and (found := progress.next()) is not None:
                worker = idle.popleft()
                progress.running[worker.do.remote(shared, *found)] = found[0], worker, time.monotonic()
            ready, _ = ray.wait(list(progress.running), num_returns=1, timeout=POLL_S)
            for answer in ready:
                task, worker, started = progress.running.pop(answer)
                try:
                    failure = ray.get(answer)
                except ray.exceptions.RayError as error:
                    failure = error
                if isinstance(failure, InputError):
                    raise failure
                if failure is not None:
                    _give_back(progress, task, failure)
                    ray.kill(worker)
                    idle.append(hire())
                    continue
                idle.append(worker)
                progress.durations.append(time.monotonic() - started)
                if task not in progress.done:
                    progress.done.add(task)
                    yield task
    finally:
        for worker in (*idle, *(worker for _, worker, _ in progress.running.values())):
            ray.kill(worker)
        ray.shutdown()


def _give_back(progress: _Progress, task: int, failure: Exception) -> None:
    """A worker failed: its task is waiting again.

    Raises: where it has cost too many, what the last of them raised; InputError where they died.
    """
    if task in progress.done:
        return
    progress.lost[task] += 1
    if progress.lost[task] == TRIES:
        if isinstance(failure, (OSError, RuntimeError)):
            raise failure
        reason = str(failure).strip().splitlines()[0]
        raise InputError(
            f"a chunk cost {TRIES} workers, maybe for want of memory ({reason}); what was computed is kept: "
            "run the same command again, with fewer --workers or a smaller --batch-size"
        )
    if all(task != other for other, _, _ in progress.running.values()):  # else its second worker is at it
        progress.doubled.discard(task)
        progress.waiting.appendleft(task)


def _start(crew: Crew) -> _Team:
    """Ray, connected to the cluster of RAY_ADDRESS, or started on this machine alone; and its workers."""
    ray = _import_ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        store = max(80 * MiB, 2 * crew.shared_bytes)
        ray.init(address="local", num_cpus=crew.workers, object_store_memory=store, include_dashboard=False, **quiet)
    _check_room(ray, crew)
    actor = ray.remote(num_cpus=1, num_gpus=crew.gpus_per_worker, max_restarts=0)(Worker)
    hire = functools.partial(actor.remote, os.getcwd(), torch.get_num_threads(), crew.module)
    return _Team(ray, hire, [hire() for _ in range(crew.workers)])


def _check_room(ray: Any, crew: Crew) -> None:
    """Raise InputError for a crew that this machine could never hold: Ray would wait for ever. A cluster may grow."""
    share = crew.gpus_per_worker
    if not share:
        return
    gpus = ray.cluster_resources().get("GPU", 0.0)
    fit = int(gpus) * workers_on_one_gpu(share) if share < 1 else int(gpus / share)
    if fit >= crew.workers:
        return
    words = f"{crew.workers} workers of {share:g} GPUs each do not fit: there are {gpus:g}"
    if os.environ.get("RAY_ADDRESS"):
        print(f"note: --executor ray: {words}; waiting for the cluster to have more", file=sys.stderr)
        return
    ray.shutdown()
    raise InputError(f"--executor ray: {words}; use fewer --workers, or another --gpus-per-worker")


def _import_ray() -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError(
            "--executor ray needs Ray, which is not installed; pip install -e '.[ray]', or leave it out"
        ) from None
    return ray
