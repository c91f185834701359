"""Cases to missing chunks to verdicts in the store. It may be killed at any moment, and goes on where it was."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tqdm.auto import tqdm

from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.store.chunk import Range
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key, trajectory_key
from benchmark.sweep.compute import Task, compute_chunk, title_of
from benchmark.sweep.local_pool import run_all
from benchmark.sweep.prepare import PreparedSweep, lacking_chunks


def sweep(prepared: PreparedSweep, store: Store, hardware: Hardware, *, quiet: bool = False) -> None:
    """Compute every missing chunk, trajectory by trajectory in the order of the cases.

    Chunks that another process has claimed are left to it; when all else is done they are waited for, and computed here
    if it died.
    """
    if prepared.batch_size is not None:
        hardware = replace(hardware, batch_size=min(hardware.batch_size, prepared.batch_size))
    for wait in (False, True):
        todo = _missing(prepared.cases, store, hardware)
        if todo and wait:
            print(f"waiting for what another process is computing ({len(todo)} of the chunks)", file=sys.stderr)
        _compute_all(todo, prepared, store, hardware, wait=wait, quiet=quiet)


def _missing(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> list[Task]:
    """Trajectories, and the chunks that one of their cases lacks; where images are kept, each case has its own."""
    lacking = {case_key(case): lacking_chunks(case, store, hardware) for case in cases}
    groups = [[case] for case in cases] if hardware.keeps_images else _trajectories(cases)
    return [
        (group, chunk)
        for group in groups
        for chunk in sorted(set().union(*(lacking[case_key(case)] for case in group)))
    ]


def _compute_all(
    todo: Sequence[Task], prepared: PreparedSweep, store: Store, hardware: Hardware, *, wait: bool, quiet: bool
) -> None:
    if not todo:
        return
    done = 0
    with tqdm(total=sum(_weight(*item) for item in todo), unit="step", unit_scale=True, disable=quiet) as bar:

        def advance(steps: int) -> None:
            bar.update(steps)

        def compute(task: int) -> None:
            nonlocal hardware
            if hardware.workers > 1:  # the bar is in another process
                hardware = compute_chunk(*todo[task], prepared, store, hardware, wait=wait)
            else:
                bar.set_description(title_of(todo[task][0]))
                hardware = compute_chunk(*todo[task], prepared, store, hardware, wait=wait, advance=advance)

        shares_memory = hardware.workers == 1 or hardware.device.type == "cpu"  # a GPU's state survives no fork
        if hardware.executor == "local" and shares_memory:
            finished = run_all(len(todo), compute, hardware.workers)
        else:
            from benchmark.sweep.worker import run_remote

            finished = run_remote(todo, prepared, store, hardware, wait=wait)
        for task in finished:
            done += _weight(*todo[task])
            bar.update(done - bar.n)


def _trajectories(cases: Sequence[EvalCase]) -> list[list[EvalCase]]:
    """Cases that one trajectory serves, together, by ascending step count."""
    groups: dict[str, list[EvalCase]] = {}
    for case in cases:
        groups.setdefault(trajectory_key(case), []).append(case)
    return [sorted(group, key=lambda case: case.attack.steps) for group in groups.values()]


def _weight(group: Sequence[EvalCase], chunk: Range) -> int:
    """Steps of single images, the progress bar's unit."""
    return (chunk[1] - chunk[0]) * group[-1].attack.weight


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
