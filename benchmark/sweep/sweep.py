"""Cases to missing tasks to verdicts in the store. It may be killed at any moment, and goes on where it was."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase
from benchmark.sweep.compute import compute_task
from benchmark.sweep.local_pool import run_all
from benchmark.sweep.prepare import PreparedSweep
from benchmark.sweep.progress import SweepBar
from benchmark.sweep.tasks import Task, all_tasks, missing_tasks


def sweep(
    prepared: PreparedSweep,
    store: Store,
    hardware: Hardware,
    *,
    run: Sequence[EvalCase] = (),
    quiet: bool = False,
) -> None:
    """Compute what is missing, model by model in the order of the cases, the longest task of a model first.

    So what is computed last, while other workers have no more to do, is short.

    Tasks that another process has claimed are left to it; when all else is done they are waited for, and computed here
    if it died.

    Args:
        hardware: as asked for, which decides of what tasks are made.
        run: all cases of the run, stored ones among them, which the progress bar shows as done; those prepared if
            empty, which is for runs whose tasks do not depend on what else is run.
    """
    run, asked = run or prepared.cases, hardware
    if not quiet:
        _say_if_workers_idle(run, asked)
    if prepared.batch_size is not None and hardware.device_of_workers == hardware.device:
        hardware = replace(hardware, batch_size=min(hardware.batch_size, prepared.batch_size))
    for wait in (False, True):
        todo, images = missing_tasks(prepared.cases, run, store, asked)
        if not todo:
            continue
        if wait:
            print(f"waiting for what another process is computing ({len(todo)} of the tasks)", file=sys.stderr)
        with SweepBar(todo, images, run, quiet=quiet) as bar:
            _compute_all(todo, prepared, store, hardware, bar, wait=wait)


def _say_if_workers_idle(run: Sequence[EvalCase], hardware: Hardware) -> None:
    """A note where the batch size that was asked for leaves some workers of a run without any task."""
    tasks = all_tasks(run, run, hardware) if hardware.workers > 1 else []
    if any(len(task.chunks) > 1 for task in tasks) and len(tasks) < hardware.workers:
        print(
            f"note: batches of {hardware.batch_size} make fewer tasks ({len(tasks)}) than there are workers "
            f"({hardware.workers}); a smaller --batch-size gives more of them something to do",
            file=sys.stderr,
        )


def _compute_all(
    todo: Sequence[Task], prepared: PreparedSweep, store: Store, hardware: Hardware, bar: SweepBar, *, wait: bool
) -> None:
    def compute(task: int) -> None:
        nonlocal hardware
        if hardware.workers > 1:  # the bar is in another process
            hardware = compute_task(todo[task], prepared, store, hardware, wait=wait)
        else:
            hardware = compute_task(todo[task], prepared, store, hardware, wait=wait, advance=bar.advance)

    if not hardware.is_remote:
        finished = run_all(len(todo), compute, hardware.workers)
    else:
        from benchmark.sweep.worker import run_remote

        finished = run_remote(todo, prepared, store, hardware, wait=wait)
    for task in finished:
        bar.finish(task)


@contextmanager
def starting_ray(hardware: Hardware, split: Split) -> Iterator[None]:
    """Ray and its workers start while the block prepares a sweep, and end where it fails; else nothing happens."""
    if hardware.executor != "ray":
        yield
        return
    from benchmark.sweep.ray_pool import shut_down_early, start_early
    from benchmark.sweep.worker import ray_workers

    start_early(ray_workers(hardware, split))
    try:
        yield
    except BaseException:
        shut_down_early()
        raise
