"""Cases to missing chunks to verdicts in the store. It may be killed at any moment, and goes on where it was."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key
from benchmark.sweep.compute import Task, compute_chunk, trajectories
from benchmark.sweep.lacking import lacking
from benchmark.sweep.local_pool import run_all
from benchmark.sweep.prepare import PreparedSweep
from benchmark.sweep.progress import SweepBar


def sweep(
    prepared: PreparedSweep,
    store: Store,
    hardware: Hardware,
    *,
    run: Sequence[EvalCase] = (),
    quiet: bool = False,
) -> None:
    """Compute every missing chunk, model by model in the order of the cases, the longest of a model's first.

    So what is computed last, while other workers have no more to do, is short.

    Chunks that another process has claimed are left to it; when all else is done they are waited for, and computed here
    if it died.

    Args:
        run: all cases of the run, of which the progress bar shows the stored ones as done; those prepared if empty.
    """
    if prepared.batch_size is not None and hardware.device_of_workers == hardware.device:
        hardware = replace(hardware, batch_size=min(hardware.batch_size, prepared.batch_size))
    for wait in (False, True):
        todo, images = _missing(prepared.cases, store, hardware)
        if not todo:
            continue
        if wait:
            print(f"waiting for what another process is computing ({len(todo)} of the chunks)", file=sys.stderr)
        with SweepBar(todo, images, run or prepared.cases, quiet=quiet) as bar:
            _compute_all(todo, prepared, store, hardware, bar, wait=wait)


def _missing(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> tuple[list[Task], list[int]]:
    """Trajectories, and the chunks that one of their cases lacks; where images are kept, each case has its own.

    Returns: the tasks, and how many images each adds, a case's own counted once.
    """
    absent = {case_key(case): chunks for case, chunks in lacking(cases, store, hardware)}
    groups = [[case] for case in cases] if hardware.keeps_images else trajectories(cases)
    place = {name: place for place, name in enumerate(dict.fromkeys(group[0].model.name for group in groups))}
    groups.sort(key=lambda group: (place[group[0].model.name], -group[-1].attack.weight))
    todo: list[Task] = [
        (group, chunk) for group in groups for chunk in sorted(set().union(*(absent[case_key(case)] for case in group)))
    ]
    images = [(chunk[1] - chunk[0]) * sum(chunk in absent[case_key(case)] for case in group) for group, chunk in todo]
    return todo, images


def _compute_all(
    todo: Sequence[Task], prepared: PreparedSweep, store: Store, hardware: Hardware, bar: SweepBar, *, wait: bool
) -> None:
    def compute(task: int) -> None:
        nonlocal hardware
        if hardware.workers > 1:  # the bar is in another process
            hardware = compute_chunk(*todo[task], prepared, store, hardware, wait=wait)
        else:
            hardware = compute_chunk(*todo[task], prepared, store, hardware, wait=wait, advance=bar.advance)

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
