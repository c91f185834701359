"""A sweep's tasks on workers that do not share this process's memory: a Ray cluster's, or one for each GPU."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.precision import precision_for
from benchmark.data.lazy_images import LazyImages
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.search_copy import search_copy
from benchmark.store.store import Store
from benchmark.sweep.compute import compute_task
from benchmark.sweep.local_pool import run_spawned
from benchmark.sweep.prepare import PreparedSweep, load_on
from benchmark.sweep.ray_pool import RayWorkers, run_on_ray
from benchmark.sweep.recent_models import RecentModels
from benchmark.sweep.tasks import Task


@dataclass(frozen=True)
class Mapped:
    """An array in memory that all processes of this machine map, and that the kernel frees with the last of them.

    Args:
        path: of the file that is that memory, while the process that made it has it open.
    """

    path: str

    def array(self) -> NDArray[Any]:
        """The array; not to be written to."""
        array: NDArray[Any] = np.load(self.path, mmap_mode="r")
        return array


@contextmanager
def mapped(array: NDArray[Any] | LazyImages) -> Iterator[Mapped | NDArray[Any] | LazyImages]:
    """The array where other processes find it for the length of the block.

    Itself on systems that cannot; what each process decodes for itself stays as it is, too.
    """
    if sys.platform != "linux" or isinstance(array, LazyImages):
        yield array
        return
    with open(os.memfd_create("images"), "wb") as file:  # unlike /dev/shm, of no fixed size and never left behind
        np.save(file, array)
        file.flush()
        yield Mapped(f"/proc/{os.getpid()}/fd/{file.fileno()}")


@dataclass(frozen=True)
class Job:
    """What a worker needs to compute any of the tasks; arrays, since Ray's workers share those, not tensors.

    Args:
        images: a split without its tensors; x, y, index: these.
        rows, predictions: as in `PreparedSweep`.
    """

    todo: Sequence[Task]
    images: Mapping[str, Any]
    x: NDArray[np.float32] | Mapped | LazyImages
    y: NDArray[np.int64]
    index: NDArray[np.int64]
    rows: Mapping[str, NDArray[np.int64]]
    predictions: Mapping[str, NDArray[np.int64]]
    store: Store
    hardware: Hardware
    checkpoint_dir: Path
    wait: bool

    def __call__(self) -> Callable[[int], None]:
        """What computes a task; called once in a worker, which loads models when a task needs them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that shared arrays cannot be written to, which nobody does
            x = self.x.array() if isinstance(self.x, Mapped) else self.x
            images = cast(torch.Tensor, x) if isinstance(x, LazyImages) else _tensor(x)
            split = Split(x=images, y=_tensor(self.y), index=_tensor(self.index), **self.images)
        specs = {spec.name: spec for task in self.todo for case in task.cases for spec in (case.model, case.source)}
        hardware = self.hardware
        if hardware.finds_precision:
            hardware = replace(hardware, precision=precision_for("auto", split.x, hardware.device))
        device = hardware.device
        models = RecentModels(lambda name: load_on(hardware, specs[name], split, self.checkpoint_dir), MOST_MODELS)
        searched = RecentModels(lambda name: search_copy(specs[name], models[name], split, hardware), MOST_MODELS)
        predictions = {name: torch.from_numpy(classes.copy()).to(device) for name, classes in self.predictions.items()}
        prepared = PreparedSweep((), split, self.rows, models, searched, predictions)

        def compute(task: int) -> None:
            nonlocal hardware
            hardware = compute_task(self.todo[task], prepared, self.store, hardware, wait=self.wait)

        return compute


MOST_MODELS = 4
"""That a worker holds at a time: a target, its sources, and one to come."""


def run_remote(
    todo: Sequence[Task], prepared: PreparedSweep, store: Store, hardware: Hardware, *, wait: bool
) -> Iterator[int]:
    """Have every task done elsewhere, and yield the number of each when it is done."""
    split = prepared.split
    x = split.x.numpy() if isinstance(split.x, torch.Tensor) else split.x
    job = Job(
        todo=todo,
        images={"dataset": split.dataset, "part": split.part, "classes": split.classes},
        x=x,
        y=split.y.numpy(),
        index=split.index.numpy(),
        rows=prepared.rows,
        predictions={name: classes.cpu().numpy() for name, classes in prepared.predictions.items()},
        store=Store(store.root.resolve()),
        hardware=replace(hardware, device=hardware.device_of_workers),
        checkpoint_dir=prepared.checkpoint_dir.resolve(),
        wait=wait,
    )
    if hardware.executor == "ray":
        yield from run_on_ray(len(todo), job, ray_workers(hardware, split))
    else:
        with mapped(x) as shared:
            yield from run_spawned(len(todo), replace(job, x=shared), hardware.workers)


def ray_workers(hardware: Hardware, split: Split) -> RayWorkers:
    """The workers that a sweep of some images asks Ray for."""
    return RayWorkers(hardware.workers, hardware.gpus_per_worker, split.x.nbytes, module=__name__)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(array)
