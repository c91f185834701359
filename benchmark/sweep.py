"""Cases to missing chunks to verdicts in the store. It may be killed at any moment, and goes on where it was."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attacks.errors import InputError
from benchmark.case import EvalCase, case_key, trajectory_key
from benchmark.chunk import Range
from benchmark.data import Split, take
from benchmark.evaluate import evaluate
from benchmark.hardware import Hardware
from benchmark.kept import Kept
from benchmark.memory import within_memory
from benchmark.search_model import precision_of
from benchmark.store import Store
from benchmark.verdicts import Verdicts
from benchmark.work import Work, lacking_chunks
from benchmark.workers import run_all
from model_zoo.locks import claim
from model_zoo.out_of_memory import is_out_of_memory
from model_zoo.stranger import Stranger, is_raised_backwards, quoted

Advance = Callable[[int], None]
Task = tuple[Sequence[EvalCase], Range]
"""Cases that one trajectory serves, and a chunk of their images."""
VERSIONED = ("torch", "torchvision", "numpy", "foolbox", "pyautoattack")


def sweep(work: Work, store: Store, hardware: Hardware, *, quiet: bool = False) -> None:
    """Compute every missing chunk, trajectory by trajectory in the order of the cases.

    Chunks that another process has claimed are left to it; when all else is done they are waited for, and computed here
    if it died.
    """
    if work.batch_size is not None:
        hardware = replace(hardware, batch_size=min(hardware.batch_size, work.batch_size))
    for wait in (False, True):
        todo = _missing(work.cases, store, hardware)
        if todo and wait:
            print(f"waiting for what another process is computing ({len(todo)} of the chunks)", file=sys.stderr)
        _compute_all(todo, work, store, hardware, wait=wait, quiet=quiet)


def _missing(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> list[Task]:
    """Trajectories, and the chunks that one of their cases lacks; a case whose images are kept walks alone."""
    lacking = {case_key(case): lacking_chunks(case, store, hardware) for case in cases}
    groups = [[case] for case in cases] if hardware.keeps_images else _trajectories(cases)
    return [
        (group, chunk)
        for group in groups
        for chunk in sorted(set().union(*(lacking[case_key(case)] for case in group)))
    ]


def _compute_all(
    todo: Sequence[Task], work: Work, store: Store, hardware: Hardware, *, wait: bool, quiet: bool
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
                hardware = compute_chunk(*todo[task], work, store, hardware, wait=wait)
            else:
                bar.set_description(_title(todo[task][0]))
                hardware = compute_chunk(*todo[task], work, store, hardware, wait=wait, advance=advance)

        shares_memory = hardware.workers == 1 or hardware.device.type == "cpu"  # a GPU's state survives no fork
        if hardware.executor == "local" and shares_memory:
            finished = run_all(len(todo), compute, hardware.workers)
        else:
            from benchmark.remote import run_remote

            finished = run_remote(todo, work, store, hardware, wait=wait)
        for task in finished:
            done += _weight(*todo[task])
            bar.update(done - bar.n)


def compute_chunk(
    group: Sequence[EvalCase],
    chunk: Range,
    work: Work,
    store: Store,
    hardware: Hardware,
    *,
    wait: bool,
    is_second: bool = False,
    advance: Advance = lambda _: None,
) -> Hardware:
    """Compute a chunk of the cases that one trajectory serves, and write what of it is missing.

    Args:
        wait: for another process that has claimed it; else it is left to that one.
        is_second: whether another worker is known to be at it, and too slow.
        advance: called after every step with the number of images that took it.

    Returns: the hardware, with the batch that fits.
    """
    name = f"{trajectory_key(group[0])} {chunk}{' again' if is_second else ''}"
    with claim(store.root, name, wait=wait) as is_ours:
        lacking = [case_key(case) for case in group if chunk in lacking_chunks(case, store, hardware)]
        if not (is_ours and lacking):
            return hardware
        started = time.perf_counter()
        (verdicts, kept), hardware = within_memory(
            _title(group), hardware, lambda hw: _evaluate(group, work, chunk, hw, advance)
        )
        precision = precision_of(work.searched[group[0].source.name], hardware.precision)
        timing = _timing(hardware, precision, (time.perf_counter() - started) / len(group))
        for case, verdict in zip(group, verdicts, strict=True):  # the longest last: it decides who shared a batch
            if case_key(case) in lacking:
                if kept is not None:
                    store.write_images(case_key(case), chunk, *kept)
                store.write_chunk(case_key(case), chunk, verdict, timing)
    return hardware


def _trajectories(cases: Sequence[EvalCase]) -> list[list[EvalCase]]:
    """Cases that one trajectory serves, together, by ascending step count."""
    groups: dict[str, list[EvalCase]] = {}
    for case in cases:
        groups.setdefault(trajectory_key(case), []).append(case)
    return [sorted(group, key=lambda case: case.attack.steps) for group in groups.values()]


def _weight(group: Sequence[EvalCase], chunk: Range) -> int:
    """Steps of single images, the progress bar's unit."""
    return (chunk[1] - chunk[0]) * group[-1].attack.weight


def _title(group: Sequence[EvalCase]) -> str:
    via = f" from {group[0].source.name}" if group[0].is_transfer else ""
    return f"{group[0].model.name}: {', '.join(case.attack.name for case in group)}{via}"


def _evaluate(
    group: Sequence[EvalCase], work: Work, chunk: Range, hardware: Hardware, advance: Advance
) -> tuple[list[Verdicts], tuple[Split, Tensor] | None]:
    """The verdicts of each case, and the images with their adversarial ones where they are kept."""
    target, source = group[0].model.name, group[0].source.name
    rows = work.rows[group[0].images][slice(*chunk)]
    images = take(work.split, rows)
    prediction = work.predictions[target][torch.from_numpy(rows).to(hardware.device)]
    on = work.models[target], work.models[source], work.searched[source]
    kept = Kept(images.x.to(hardware.device)) if hardware.keeps_images else None
    broken = torch.full_like(images.x, torch.nan, device=hardware.device) if work.keep is not None else None

    def see(rows: Tensor, points: Tensor, correct: Tensor) -> None:
        if kept is not None:
            kept.see(rows, points, correct)
        if broken is not None:
            broken[rows[~correct]] = points[~correct]

    with _told(group, work.models[source]):
        verdicts = evaluate(group, *on, images, prediction, hardware, progress=advance, see=see)
    if work.keep is not None and broken is not None:
        work.keep(group[-1], images, broken)
    return verdicts, None if kept is None else (images, kept.x_adv)


@contextmanager
def _told(group: Sequence[EvalCase], source: nn.Module) -> Iterator[None]:
    """What is wrong is told with the model and the attack; of a user's own model what its backward pass raises, too."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{_title(group)}: {error}") from None
    except Exception as error:
        if is_out_of_memory(error) or not (isinstance(source, Stranger) and is_raised_backwards(error)):
            raise
        raise InputError(f"{_title(group)}: in its backward pass the model raised {quoted(error)}") from error


def _timing(hardware: Hardware, precision: torch.dtype, seconds: float) -> dict[str, Any]:
    """What differs from run to run."""
    return {
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if hardware.device.type == "cuda" else "cpu",
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
        "batch_size": hardware.batch_size,
        "threads": torch.get_num_threads(),
        "workers": hardware.workers,
        "versions": " ".join(f"{name}={version(name)}" for name in VERSIONED),
    }
