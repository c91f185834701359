"""Tasks on the workers of a Ray cluster, or of one that is started here for the time of the sweep.

A worker holds what all tasks share, loads a model when it first needs it, and writes its verdicts to the store itself.
"""

import functools
import importlib
import os
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from attacks.errors import InputError
from benchmark.evaluation.hardware import Resources, own_resources

TRIES = 3
"""How many workers a task may cost before the sweep goes on without it."""

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Of Ray, unless the environment says otherwise: it reports nothing, and its workers run at the driver's priority."""
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
MiB = 1 << 20


@dataclass(frozen=True)
class RayWorkers:
    """The workers that a sweep asks Ray for.

    Args:
        count: how many; each has one CPU, and a share of a GPU.
        gpus_per_worker: may be a fraction.
        shared_bytes: size of what all workers share.
        module: what a worker imports while it waits for its first task.
    """

    count: int
    gpus_per_worker: float
    shared_bytes: int
    module: str = __name__


def ray_resources() -> Resources:
    """Of the cluster of RAY_ADDRESS, whatever the machine of this process has; else of this machine alone.

    Raises: InputError without Ray, and where no cluster answers.
    """
    ray = _import_ray()
    if not os.environ.get("RAY_ADDRESS"):
        return own_resources()
    _connect(ray)
    try:
        there = ray.cluster_resources()
        return Resources(int(there.get("CPU", 1)), float(there.get("GPU", 0.0)))
    finally:
        ray.shutdown()


def _connect(ray: Any) -> None:
    try:
        ray.init(**QUIET)
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({str(error).splitlines()[0]}); "
            "start one by `ray start --head`, or unset RAY_ADDRESS to start one on this machine"
        ) from None


class _Cluster(NamedTuple):
    """Ray, how to start a worker there, and the workers that are started."""

    ray: Any
    start_worker: Callable[[], Any]
    workers: list[Any]


_early: "list[Future[_Cluster]]" = []
"""A cluster that is being started; taken out by the sweep that it is for."""


def start_early(wanted: RayWorkers) -> None:
    """Start Ray and the workers in the background, while this process goes on. Raises: InputError without Ray."""
    _import_ray()
    if not _early:
        _early.append(Future())
        threading.Thread(target=_start_and_stay, args=(wanted, _early[0]), daemon=True).start()


def _start_and_stay(wanted: RayWorkers, cluster: "Future[_Cluster]") -> None:
    try:
        cluster.set_result(_start(wanted))
    except BaseException as error:  # also SystemExit, or the sweep would wait for ever
        cluster.set_exception(error)
    threading.Event().wait()  # Ray's processes end with the thread that started them


def shut_down_early() -> None:
    """Have what `start_early` started end as soon as it is there: no sweep takes it up."""
    while _early:
        _early.pop().add_done_callback(_shut_down_started)


def _shut_down_started(started: "Future[_Cluster]") -> None:
    if started.exception() is None:
        cluster = started.result()
        _shut_down(cluster.ray, cluster.workers)


def _shut_down(ray: Any, workers: Iterable[Any]) -> None:
    for worker in workers:
        ray.kill(worker)
    ray.shutdown()


class Worker:
    """An actor: does one task at a time. The job is called once, in the worker's process, and makes `compute`."""

    def __init__(self, folder: str, threads: int, module: str) -> None:
        os.chdir(folder)
        torch.set_num_threads(threads)
        importlib.import_module(module)
        self._compute: Callable[[int], None] | None = None

    def compute(self, job: list[Any], task: int) -> Exception | None:
        """What went wrong, in a form that survives the way back.

        Args:
            job: a reference to it, in a list so that Ray does not fetch it again for every task.
        """
        import ray

        try:
            self._compute = self._compute or ray.get(job[0])()
            self._compute(task)
        except (InputError, OSError) as error:
            return error
        except Exception:
            return RuntimeError(traceback.format_exc())
        return None


def run_on_ray(tasks: int, job: Callable[[], Callable[[int], None]], wanted: RayWorkers) -> Iterator[int]:
    """Do tasks 0, 1, ..., and yield the number of each when it is done.

    A task whose worker died, or failed as a machine does, is done by a new one.

    Args:
        job: what a worker needs, as a picklable callable: it returns what does the task of a number.

    Raises: whatever a task raises, other failures than InputError where several workers had them; InputError without
        Ray, where this machine cannot hold such workers, or where several died at a task.
    """
    ray, start_worker, workers = _early.pop().result() if _early else _start(wanted)
    shared = [ray.put(job)]
    waiting, idle = deque(range(tasks)), deque(workers)
    running: dict[Any, tuple[int, Any]] = {}
    lost: Counter[int] = Counter()
    try:
        while waiting or running:
            while waiting and idle:
                task, worker = waiting.popleft(), idle.popleft()
                running[worker.compute.remote(shared, task)] = task, worker
            (answer,), _ = ray.wait(list(running), num_returns=1)
            task, worker = running.pop(answer)
            try:
                failure = ray.get(answer)
            except ray.exceptions.RayError as error:
                failure = error
            if failure is None:
                idle.append(worker)
                yield task
                continue
            ray.kill(worker)
            lost[task] += 1
            _refuse_to_go_on(failure, lost[task])
            waiting.appendleft(task)
            idle.append(start_worker())
    finally:
        _shut_down(ray, (*idle, *(worker for _, worker in running.values())))


def _refuse_to_go_on(failure: Exception, lost: int) -> None:
    """Raise a mistake of the user's; of `TRIES` lost workers what the last one raised, InputError where it died."""
    if isinstance(failure, InputError):
        raise failure
    if lost < TRIES:
        return
    if isinstance(failure, (OSError, RuntimeError)):
        raise failure
    reason = str(failure).strip().splitlines()[0]
    raise InputError(
        f"a task cost {TRIES} workers, maybe for want of memory ({reason}); what was computed is kept: "
        "run the same command again, with fewer --workers or a smaller --batch-size"
    )


def _start(wanted: RayWorkers) -> _Cluster:
    """Ray, connected to the cluster of RAY_ADDRESS, or started on this machine alone; and its workers."""
    ray = _import_ray()
    if os.environ.get("RAY_ADDRESS"):
        _connect(ray)
    else:
        store = max(80 * MiB, 2 * wanted.shared_bytes)
        ray.init(address="local", num_cpus=wanted.count, object_store_memory=store, include_dashboard=False, **QUIET)
    _check_room(ray, wanted)
    actor = ray.remote(num_cpus=1, num_gpus=wanted.gpus_per_worker, max_restarts=0)(Worker)
    start_worker = functools.partial(actor.remote, os.getcwd(), torch.get_num_threads(), wanted.module)
    return _Cluster(ray, start_worker, [start_worker() for _ in range(wanted.count)])


def _check_room(ray: Any, wanted: RayWorkers) -> None:
    """Raise InputError for workers that this machine could never hold: Ray would wait for ever. A cluster may grow."""
    share = wanted.gpus_per_worker
    gpus = ray.cluster_resources().get("GPU", 0.0)
    if not share or Resources(0, gpus).room_for(share) >= wanted.count:
        return
    words = f"{wanted.count} workers of {share:g} GPUs each do not fit: there are {gpus:g}"
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
