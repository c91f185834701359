"""A chunk of the cases that one trajectory serves: attacked, judged, written to the store."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks.errors import InputError, one_line
from attacks.found_points import FoundPoints
from attacks.input_checks import raised_in_backward
from attacks.models.user_model import UserModel
from attacks.out_of_memory import is_out_of_memory
from attacks.search_model import precision_of
from benchmark.data.split import Split, take
from benchmark.evaluation.batch_size import on_fitting_batches
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware, device_name, versions_text
from benchmark.store.certificate_store import CertificateStore, proven_images, refuse_contradiction
from benchmark.store.chunk import Range
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key, trajectory_key
from benchmark.sweep.lacking import lacking_chunks
from benchmark.sweep.prepare import PreparedSweep
from model_zoo.files.locks import claim

Advance = Callable[[int], None]


Task = tuple[Sequence[EvalCase], Range]
"""Cases that one trajectory serves, and a chunk of their images."""


def compute_chunk(
    group: Sequence[EvalCase],
    chunk: Range,
    prepared: PreparedSweep,
    store: Store,
    hardware: Hardware,
    *,
    wait: bool,
    advance: Advance = lambda _: None,
) -> Hardware:
    """Compute a chunk of the cases that one trajectory serves, and write what of it is missing.

    Args:
        wait: for another process that has claimed it; else it is left to that one.
        advance: called after every step with the number of images that took it.

    Returns: the hardware, with the batch that fits.
    """
    with claim(store.root, f"{trajectory_key(group[0])} {chunk}", wait=wait) as is_ours:
        lacking = [case_key(case) for case in group if chunk in lacking_chunks(case, store, hardware)]
        if not (is_ours and lacking):
            return hardware
        started = time.perf_counter()
        (verdicts, found), hardware = on_fitting_batches(
            title_of(group), hardware, lambda fitting: _evaluate(group, prepared, chunk, fitting, advance)
        )
        precision = precision_of(prepared.searched[group[0].source.name], hardware.precision)
        timing = _timing(hardware, precision, (time.perf_counter() - started) / len(group))
        _refuse_contradictions(group, verdicts, store)
        for case, verdict in zip(group, verdicts, strict=True):  # the longest last: it decides who shared a batch
            if case_key(case) in lacking:
                if found is not None:
                    store.write_images(case_key(case), chunk, *found)
                store.write_chunk(case_key(case), chunk, verdict, timing)
    return hardware


def _refuse_contradictions(group: Sequence[EvalCase], verdicts: Sequence[Verdicts], store: Store) -> None:
    """Raise ContradictionError, before anything is written, where an image was broken that is certified."""
    certified = CertificateStore(store.root).shown(group[0].suite)
    for case, verdict in zip(group, verdicts, strict=True) if certified else ():
        broken = verdict.index[~verdict.robust_any]
        refuse_contradiction(title_of([case]), broken, proven_images(certified, case.model.identity, case.threat))


def title_of(group: Sequence[EvalCase]) -> str:
    """The cases of one trajectory as people read them: MODEL: ATTACK, ATTACK from SOURCE."""
    via = f" from {group[0].source.name}" if group[0].is_transfer else ""
    return f"{group[0].model.name}: {', '.join(case.cell[1] for case in group)}{via}"


def trajectories(cases: Sequence[EvalCase]) -> list[list[EvalCase]]:
    """Cases that one trajectory serves, together, by ascending step count."""
    groups: dict[str, list[EvalCase]] = {}
    for case in cases:
        groups.setdefault(trajectory_key(case), []).append(case)
    return [sorted(group, key=lambda case: case.attack.steps) for group in groups.values()]


def weight(group: Sequence[EvalCase], chunk: Range) -> int:
    """The steps of single images that a task takes at most."""
    return (chunk[1] - chunk[0]) * group[-1].attack.weight


def _evaluate(
    group: Sequence[EvalCase], prepared: PreparedSweep, chunk: Range, hardware: Hardware, advance: Advance
) -> tuple[list[Verdicts], tuple[Split, Tensor] | None]:
    """The verdicts of each case, and the images with their adversarial ones where they are kept."""
    target, source = group[0].model.name, group[0].source.name
    rows = prepared.rows[group[0].images][slice(*chunk)]
    images = take(prepared.split, rows)
    images = replace(images, x=images.x.to(hardware.device))
    prediction = prepared.predictions[target][torch.from_numpy(rows).to(hardware.device)]
    on = prepared.models[target], prepared.models[source], prepared.searched[source]
    found = FoundPoints(images.x) if hardware.keeps_images else None

    def observe(rows: Tensor, points: Tensor, correct: Tensor) -> None:
        if found is not None:
            found.observe(rows, points, correct)

    with _errors_with_names(group, prepared.models[source]):
        verdicts = evaluate_chunk(group, *on, images, prediction, hardware, progress=advance, observe=observe)
    return verdicts, None if found is None else (images, found.x_adv)


@contextmanager
def _errors_with_names(group: Sequence[EvalCase], source: nn.Module) -> Iterator[None]:
    """Errors name the model and the attack; what a user's model raises in its backward pass is an InputError, too."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{title_of(group)}: {error}") from None
    except Exception as error:
        if is_out_of_memory(error) or not (isinstance(source, UserModel) and raised_in_backward(error)):
            raise
        raise InputError(f"{title_of(group)}: in its backward pass the model raised {one_line(error)}") from error


def _timing(hardware: Hardware, precision: torch.dtype, seconds: float) -> dict[str, Any]:
    """What differs from run to run."""
    return {
        "seconds": seconds,
        "device": device_name(hardware),
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
        "batch_size": hardware.batch_size,
        "threads": torch.get_num_threads(),
        "workers": hardware.workers,
        "versions": versions_text(hardware.device),
    }
