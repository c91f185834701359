"""Cases to missing chunks to verdicts in the store. It may be killed at any moment, and goes on where it was."""

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from attacks.errors import InputError
from benchmark.case import EvalCase, case_key, identity, trajectory_key
from benchmark.checks import check_images, check_model
from benchmark.chunk import Range
from benchmark.data import Split, balanced_subset, digest, take
from benchmark.evaluate import evaluate
from benchmark.hardware import Hardware, halved, is_tiny
from benchmark.kept import Kept
from benchmark.locks import claim
from benchmark.memory import fitting_batch
from benchmark.search_model import search_model
from benchmark.store import Store
from benchmark.verdicts import Verdicts
from benchmark.workers import run_all
from model_zoo.registry import ModelSpec, load_model

T = TypeVar("T")
Advance = Callable[[int], None]
Task = tuple[Sequence[EvalCase], Range]
"""Cases that one trajectory serves, and a chunk of their images."""
Keep = Callable[[EvalCase, Split, Tensor], None]
"""What is done with a chunk's images and the points that broke them, (N, C, H, W), not a number where none did."""
OutOfMemory = torch.OutOfMemoryError
VERSIONED = ("torch", "torchvision", "numpy", "foolbox", "pyautoattack")


@dataclass(frozen=True)
class Work:
    """Cases that lack verdicts, and all that computing them needs, checked.

    Args:
        cases: with a chunk missing.
        split: the images.
        rows: by digest of a case's images, where they stand in the split.
        models: by name, on the device, in eval mode, frozen.
        searched: by name, the copies that attacks search on.
        predictions: of the judged models by name, (N,) classes of the clean images.
        checkpoint_dir: where the models' weights came from.
        batch_size: the largest that the models were found to fit in; None where nothing was tried.
        keep: called with each chunk that was attacked, in the process that did it; None to keep no points.
    """

    cases: Sequence[EvalCase]
    split: Split
    rows: Mapping[str, NDArray[np.int64]]
    models: Mapping[str, nn.Module]
    searched: Mapping[str, nn.Module]
    predictions: Mapping[str, Tensor]
    checkpoint_dir: Path = Path()
    batch_size: int | None = None
    keep: Keep | None = None


def prepare(cases: Sequence[EvalCase], split: Split, store: Store, hardware: Hardware, *, checkpoint_dir: Path) -> Work:
    """Find what the store lacks, load the models that it takes, and check them and the images.

    Args:
        cases: in any order; it changes no byte of any verdict.
        split: the images that all cases attack, or a part of them.
        checkpoint_dir: where the models' weights are looked for first.

    Raises: InputError, before any attack, for images or a model that no number would mean anything for.
    """
    store.check()
    for path in itertools.chain.from_iterable(store.damaged(case_key(case)) for case in cases):
        print(f"damaged chunk, will be computed again: {path}", file=sys.stderr)
        path.unlink(missing_ok=True)
    work = [case for case in cases if _lacks(case, store, hardware) or not store.read_case(case_key(case))]
    if not work:
        return Work((), split, {}, {}, {}, {})
    store.open()
    check_images(split)
    with _team_ahead(hardware, split):
        return _prepared(work, split, store, hardware, checkpoint_dir)


@contextmanager
def _team_ahead(hardware: Hardware, split: Split) -> Iterator[None]:
    """Ray's workers are hired during the block, and sent home where it fails."""
    if hardware.executor != "ray":
        yield
        return
    from benchmark.remote import crew, let_go, start_early

    start_early(crew(hardware, split))
    try:
        yield
    except BaseException:
        let_go()
        raise


def _prepared(work: Sequence[EvalCase], split: Split, store: Store, hardware: Hardware, checkpoint_dir: Path) -> Work:
    """The models that the cases take, loaded and checked; their records written."""
    models = {
        spec.name: load_on(hardware, spec, split, checkpoint_dir)
        for spec in _distinct(spec for case in work for spec in (case.model, case.source))
    }
    judged = [spec.name for spec in _distinct(case.model for case in work)]
    if hardware.finds_batch:
        hardware = replace(hardware, batch_size=fitting_batch(list(models.values()), split.x, split.y, hardware))
    checked = {}
    for name in judged:
        checked[name], hardware = _within_memory(
            name,
            hardware,
            lambda hw: check_model(name, models[name], split, hw),  # noqa: B023
        )
    for case in work:
        flags = checked[case.model.name].flags
        store.write_case(case_key(case), {"identity": identity(case), "flags": list(flags)})
    sources = dict.fromkeys(case.source.name for case in work)
    example = split.x[:1].to(hardware.device)
    searched = {name: search_model(models[name], example, hardware.precision) for name in sources}
    rows = {case.images: _rows(split, case) for case in {case.images: case for case in work}.values()}
    predictions = {name: checked[name].prediction for name in judged}
    return Work(work, split, rows, models, searched, predictions, checkpoint_dir, hardware.batch_size)


def _rows(split: Split, case: EvalCase) -> NDArray[np.int64]:
    """Where the images of a case stand in the split: all of them, or the seeded balanced subset of that size."""
    part = balanced_subset(split, case.n, seed=case.seed)
    assert digest(part) == case.images
    return np.searchsorted(split.index.numpy(), part.index.numpy())


def load_on(hardware: Hardware, spec: ModelSpec, split: Split, checkpoint_dir: Path) -> nn.Module:
    """A model on the device, in the memory layout that is fastest there."""
    model = load_model(spec, checkpoint_dir, classes=split.classes).to(hardware.device)
    return model if is_tiny(split) else model.to(memory_format=torch.channels_last)


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
            print(f"waiting for {len(todo)} chunks that another process is computing", file=sys.stderr)
        _compute_all(todo, work, store, hardware, wait=wait, quiet=quiet)


def _lacks(case: EvalCase, store: Store, hardware: Hardware) -> set[Range]:
    """The chunks of a case that are not there, or not with the images that are to be kept."""
    key = case_key(case)
    return {*store.absent(key, case.n), *(store.without_images(key, case.n) if hardware.keeps_images else ())}


def _missing(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> list[Task]:
    """Trajectories, and the chunks that one of their cases lacks; a case whose images are kept walks alone."""
    lacking = {case_key(case): _lacks(case, store, hardware) for case in cases}
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
        lacking = [case_key(case) for case in group if chunk in _lacks(case, store, hardware)]
        if not (is_ours and lacking):
            return hardware
        started = time.perf_counter()
        (verdicts, kept), hardware = _within_memory(
            _title(group), hardware, lambda hw: _evaluate(group, work, chunk, hw, advance)
        )
        timing = _timing(hardware, (time.perf_counter() - started) / len(group))
        for case, verdict in zip(group, verdicts, strict=True):  # the longest last: it decides who shared a batch
            if case_key(case) in lacking:
                if kept is not None:
                    store.write_images(case_key(case), chunk, *kept)
                store.write_chunk(case_key(case), chunk, verdict, timing)
    return hardware


def _distinct(specs: Iterable[ModelSpec]) -> list[ModelSpec]:
    return list({spec.name: spec for spec in specs}.values())


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


def _within_memory(what: str, hardware: Hardware, run: Callable[[Hardware], T]) -> tuple[T, Hardware]:
    """Halve the batch until it fits; the smaller batch is kept for what is to come."""
    while True:
        with suppress(OutOfMemory):
            return run(hardware), hardware
        if hardware.batch_size == 1:
            raise InputError(f"{what}: out of memory with a single image; use another --device")
        hardware = halved(hardware)
        print(f"{what}: out of memory, going on with batches of {hardware.batch_size}", file=sys.stderr)


def _evaluate(
    group: Sequence[EvalCase], work: Work, chunk: Range, hardware: Hardware, advance: Advance
) -> tuple[list[Verdicts], tuple[Split, Tensor] | None]:
    """The verdicts of each case, and the images with their adversarial ones where they are kept."""
    target, source = group[0].model.name, group[0].source.name
    rows = work.rows[group[0].images][slice(*chunk)]
    images = take(work.split, rows)
    prediction = work.predictions[target][torch.from_numpy(rows).to(hardware.device)]
    on = work.models[target], work.models[source], work.searched[source]
    if work.keep is not None:
        broken = torch.full_like(images.x, torch.nan, device=hardware.device)

        def note(rows: Tensor, points: Tensor, correct: Tensor) -> None:
            broken[rows[~correct]] = points[~correct]

        verdicts = evaluate(group, *on, images, prediction, hardware, progress=advance, see=note)
        work.keep(group[-1], images, broken)
        return verdicts, None
    if not hardware.keeps_images:
        return evaluate(group, *on, images, prediction, hardware, progress=advance), None
    kept = Kept(images.x.to(hardware.device))
    verdicts = evaluate(group, *on, images, prediction, hardware, progress=advance, see=kept.see)
    return verdicts, (images, kept.x_adv)


def _timing(hardware: Hardware, seconds: float) -> dict[str, Any]:
    """What differs from run to run."""
    return {
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if hardware.device.type == "cuda" else "cpu",
        "precision": "bf16" if hardware.precision == torch.bfloat16 else "fp32",
        "batch_size": hardware.batch_size,
        "threads": torch.get_num_threads(),
        "workers": hardware.workers,
        "versions": " ".join(f"{name}={version(name)}" for name in VERSIONED),
    }
