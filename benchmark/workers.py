"""Tasks side by side, in processes of one machine that share what is in memory."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from attacks.errors import InputError

_compute: Callable[[int], None]
"""What a worker process does with a task's number; inherited, not sent."""


def can_fork() -> bool:
    """Whether processes can start as copies of this one, which is safe while it computes on one thread only."""
    return sys.platform == "linux"


def run_all(tasks: int, compute: Callable[[int], None], workers: int) -> Iterator[int]:
    """Do tasks 0, 1, ..., and yield the number of each when it is done.

    Args:
        compute: does a task, and keeps its result where it outlives the process.
        workers: how many processes; with one, this process itself.

    Raises: whatever a task raises; InputError where a process was killed. What was done before is done.
    """
    if workers == 1:
        for task in range(tasks):
            compute(task)
            yield task
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, initializer=_enter, initargs=(compute,)) as pool:
        futures = {pool.submit(_call, task): task for task in range(tasks)}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, maybe for want of memory; what was computed is kept: "
                "run the same command again, with --workers 1"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _enter(compute: Callable[[int], None]) -> None:
    global _compute
    _compute = compute
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(task: int) -> None:
    _compute(task)
