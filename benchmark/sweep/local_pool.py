"""Tasks side by side, in processes of one machine that share what is in memory."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

import torch

from attacks.errors import InputError

A = TypeVar("A")
B = TypeVar("B")

TRIES = 3
"""How often new processes are started without one finished task, before the sweep ends with an error."""


class WorkerKilledError(InputError):
    """A worker process was ended from outside."""


@dataclass(frozen=True)
class Failure:
    """What a task raised, in a form that survives the way to the parent, and the number of the worker that did it."""

    error: Exception
    worker: int


_compute: Callable[[int], None]
"""What a worker process does with a task's number; inherited, not sent."""
_number = 0
"""Of this worker process, where they are numbered."""


def can_fork() -> bool:
    """Whether processes can start as copies of this one; the caller sees to it that it computes on one thread."""
    return sys.platform == "linux"


def run_all(tasks: int, compute: Callable[[int], None], workers: int) -> Iterator[int]:
    """Do tasks 0, 1, ..., and yield the number of each when it is done.

    Args:
        compute: does a task, and keeps its result where it outlives the process.
        workers: how many processes; with one, this process itself.

    Where a process is killed, new ones do what is left.

    Raises: whatever a task raises; InputError where processes are killed over and over. What was done before is done.
    """
    if workers == 1:
        for task in range(tasks):
            compute(task)
            yield task
        return
    context = multiprocessing.get_context("fork")
    yield from _run(
        lambda: ProcessPoolExecutor(min(workers, tasks), context, initializer=_start_worker, initargs=(compute,)),
        tasks,
        workers,
    )


def run_spawned(tasks: int, job: Callable[[], Callable[[int], None]], workers: int) -> Iterator[int]:
    """The same in processes that start afresh, which a GPU's state demands; each takes the next GPU, and all in turn.

    A GPU on which a task fails is left out, and the task done on another; where it fails there, too, that is raised.

    Args:
        job: picklable; called once in each process, it returns what does a task.
    """
    context = multiprocessing.get_context("spawn")
    places = torch.cuda.device_count() or workers
    healthy, failed_tasks = list(range(workers)), set[int]()

    def start_pool() -> ProcessPoolExecutor:
        numbers = context.SimpleQueue()
        for number in healthy:
            numbers.put(number)
        arguments = job, numbers, torch.get_num_threads()
        return ProcessPoolExecutor(len(healthy), context, initializer=_start_spawned_worker, initargs=arguments)

    def leave_out(task: int, failure: Failure) -> bool:
        others = [number for number in healthy if (number - failure.worker) % places]
        if isinstance(failure.error, (InputError, OSError)) or task in failed_tasks or not others:
            return False
        failed_tasks.add(task)
        healthy[:] = others
        line = str(failure.error).strip().splitlines()[-1]
        print(
            f"note: GPU {failure.worker % places} failed and is left out ({line}); "
            f"{len(others)} of {workers} workers go on",
            file=sys.stderr,
        )
        return True

    yield from _run(start_pool, tasks, workers, leave_out)


def run_map(function: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[B]:
    """What a function returns of each item, in order; function, items and results are picklable."""
    if workers == 1 or len(items) < 2 * workers:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=_depend_on_parent)
    with _closing(pool):
        yield from pool.map(function, items, chunksize=-(-len(items) // (32 * workers)))


def _run(
    start_pool: Callable[[], ProcessPoolExecutor],
    tasks: int,
    workers: int,
    survives: Callable[[int, Failure], bool] = lambda _task, _failure: False,
) -> Iterator[int]:
    """Do all tasks, with new processes where some were killed.

    Args:
        survives: whether a task that failed so is to be done again, by the processes that the next pool has.
    """
    order, fruitless = list(range(tasks)), 0
    while order:
        pool, done, survived = start_pool(), set[int](), False
        try:
            with _closing(pool):
                futures = {pool.submit(_call, task): task for task in order}
                for future in as_completed(futures):
                    if failure := future.result():
                        if not survives(futures[future], failure):
                            raise failure.error
                        order.insert(0, order.pop(order.index(futures[future])))  # what fails everywhere is known soon
                        survived = True
                        break
                    done.add(futures[future])
                    yield futures[future]
        except WorkerKilledError as error:
            fruitless = 0 if done else fruitless + 1
            if fruitless == TRIES:
                raise
            print(f"{error}: starting new ones for the {len(order) - len(done)} tasks that are left", file=sys.stderr)
        left = [task for task in order if task not in done]
        # where a process was killed, those that were being done come last: one of them may kill again
        order = left if survived else left[workers:] + left[:workers]


@contextmanager
def _closing(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Its processes end with the block. Raises: WorkerKilledError where one was killed."""
    try:
        yield
    except BrokenProcessPool:
        raise WorkerKilledError(
            "a worker process was killed, maybe for want of memory (fewer --workers take less); what was done is kept"
        ) from None
    finally:
        _stop(pool)


def _stop(pool: ProcessPoolExecutor) -> None:
    """Have idle workers end, and busy ones, of which there are none unless something went wrong, stopped."""
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        process.terminate()


def _start_worker(compute: Callable[[int], None]) -> None:
    global _compute
    _compute = compute
    _depend_on_parent()


def _depend_on_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what happened, and ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _start_spawned_worker(job: Callable[[], Callable[[int], None]], numbers: "SimpleQueue[int]", threads: int) -> None:
    global _number
    number = _number = numbers.get()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    made: list[Callable[[int], None]] = []

    def compute(task: int) -> None:
        if not made:  # here, where an error reaches the parent
            made.append(job())
        made[0](task)

    _start_worker(compute)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def worker_number() -> int:
    """Of the process that this is called in, among those of `run_spawned`."""
    return _number


def _call(task: int) -> Failure | None:
    """What went wrong."""
    try:
        _compute(task)
    except (InputError, OSError) as error:
        return Failure(error, _number)
    except Exception:
        return Failure(RuntimeError(traceback.format_exc()), _number)
    return None
