"""A task: its images attacked, judged, and written to the store chunk by chunk."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
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
from benchmark.sweep.tasks import Task, title_of
from model_zoo.files.locks import claim

Advance = Callable[[int], None]


def compute_task(
    task: Task,
    prepared: PreparedSweep,
    store: Store,
    hardware: Hardware,
    *,
    wait: bool,
    advance: Advance = lambda _: None,
) -> Hardware:
    """Compute a task, and write what of its chunks is missing.

    It is computed whole where a chunk of it is missing, so that the images share their batches with the same others
    whatever is stored.

    Args:
        wait: for another process that has claimed some of it; else it is left to that one.
        advance: called after every step with the number of images that took it.

    Returns: the hardware, with the batch that fits.
    """
    claims = [f"{trajectory_key(task.cases[0])} {chunk}" for chunk in task.chunks]
    with claim(store.root, *claims, wait=wait) as is_ours:
        lacking = {
            case_key(case): lacking_chunks(case, store, hardware).intersection(task.chunks) for case in task.cases
        }
        if not (is_ours and any(lacking.values())):
            return hardware
        started = time.perf_counter()
        (verdicts, found), hardware = on_fitting_batches(
            task.title, hardware, lambda fitting: _evaluate(task, prepared, fitting, advance)
        )
        precision = precision_of(prepared.searched[task.cases[0].source.name], hardware.precision)
        timing = _timing(task, hardware, precision, time.perf_counter() - started)
        _refuse_contradictions(task.cases, verdicts, store)
        for case, verdict in zip(task.cases, verdicts, strict=True):  # the longest last: it decides who shared a batch
            for chunk in sorted(lacking[case_key(case)]):
                rows = slice(chunk[0] - task.images[0], chunk[1] - task.images[0])
                if found is not None:
                    images, x_adv = found
                    part = take(images, np.arange(len(images))[rows])
                    store.write_images(case_key(case), chunk, part, x_adv[rows])
                store.write_chunk(case_key(case), chunk, verdict.of(rows), timing[chunk])
    return hardware


def _refuse_contradictions(group: Sequence[EvalCase], verdicts: Sequence[Verdicts], store: Store) -> None:
    """Raise ContradictionError, before anything is written, where an image was broken that is certified."""
    certificates = CertificateStore(store.root)
    certified = [one for suite in certificates.suites() for one in certificates.shown(suite)]
    for case, verdict in zip(group, verdicts, strict=True) if certified else ():
        broken = verdict.index[~verdict.robust_any]
        proven = proven_images(certified, case.model.identity, case.threat, case.images, case.origin)
        refuse_contradiction(title_of([case]), broken, proven)


def _evaluate(
    task: Task, prepared: PreparedSweep, hardware: Hardware, advance: Advance
) -> tuple[list[Verdicts], tuple[Split, Tensor] | None]:
    """The verdicts of each case, and the images with their adversarial ones where they are kept."""
    first = task.cases[0]
    target, source = first.model.name, first.source.name
    rows = prepared.rows[first.images][slice(*task.images)]
    images = take(prepared.split, rows)
    images = replace(images, x=images.x.to(hardware.device))
    prediction = prepared.predictions[target][torch.from_numpy(rows).to(hardware.device)]
    on = prepared.models[target], prepared.models[source], prepared.searched[source]
    found = FoundPoints(images.x) if hardware.keeps_images else None

    def observe(rows: Tensor, points: Tensor, correct: Tensor) -> None:
        if found is not None:
            found.observe(rows, points, correct)

    with _errors_with_names(task.title, prepared.models[source]):
        verdicts = evaluate_chunk(task.cases, *on, images, prediction, hardware, progress=advance, observe=observe)
    return verdicts, None if found is None else (images, found.x_adv)


@contextmanager
def _errors_with_names(title: str, source: nn.Module) -> Iterator[None]:
    """Errors name the model and the attack; what a user's model raises in its backward pass is an InputError, too."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{title}: {error}") from None
    except Exception as error:
        if is_out_of_memory(error) or not (isinstance(source, UserModel) and raised_in_backward(error)):
            raise
        raise InputError(f"{title}: in its backward pass the model raised {one_line(error)}") from error


def _timing(task: Task, hardware: Hardware, precision: torch.dtype, seconds: float) -> dict[Range, dict[str, Any]]:
    """What differs from run to run, of each chunk of a case: of the task's seconds a share by images."""
    start, stop = task.images
    of_an_image = seconds / len(task.cases) / (stop - start)
    setting = {
        "device": device_name(hardware),
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
        "batch_size": hardware.batch_size,
        "task": stop - start,
        "threads": torch.get_num_threads(),
        "workers": hardware.workers,
        "versions": versions_text(hardware.device),
    }
    return {chunk: {"seconds": of_an_image * (chunk[1] - chunk[0]), **setting} for chunk in task.chunks}
