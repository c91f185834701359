"""How many images fit into memory at a time, found out by a few of them, and by running out of it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from attacks.oracle import Oracle
from attacks.out_of_memory import within_memory
from attacks.threat_model import ThreatModel
from benchmark.evaluation.hardware import Hardware, workers_on_one_gpu

T = TypeVar("T")

PROBED = 4
SHARE = 0.5
"""Of the free memory that a batch's activations may take; the rest is for the attack's state and the workspace."""

MOST_ON_CPU = 2**31
"""Bytes that a batch's activations take at most on a CPU, which computes no faster for more of them."""

MEMINFO, LIMITS = Path("/proc/meminfo"), (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def find_batch_size(models: Iterable[nn.Module], x: Tensor, y: Tensor, hardware: Hardware) -> int:
    """The largest batch, at most the hardware's, that every model can take a gradient of in the memory that is free.

    Args:
        x, y: images and labels; the first few are tried.
    """
    free = free_bytes(hardware.device)
    if free is None:
        return hardware.batch_size
    x, y = x[:PROBED].to(hardware.device), y[:PROBED].to(hardware.device)
    needed = 1.0
    for model in models:
        try:
            needed = max(needed, measure_gradient_bytes(model, x, y, hardware.precision) / len(x))
        except Exception:  # it cannot take the images, or has no gradient: the checks say so, and why
            continue
    room = SHARE * free / _sharing(hardware)
    if hardware.device.type == "cpu":
        room = min(room, MOST_ON_CPU)
    return max(1, min(hardware.batch_size, int(room / needed)))


def _sharing(hardware: Hardware) -> int:
    """How many workers share the memory of one device: Ray packs them by their share of a GPU, else they take turns."""
    if hardware.device.type != "cuda":
        return hardware.workers
    if hardware.executor == "ray":
        return workers_on_one_gpu(hardware.gpus_per_worker) if hardware.gpus_per_worker else hardware.workers
    return -(-hardware.workers // torch.cuda.device_count())


def measure_gradient_bytes(model: nn.Module, x: Tensor, y: Tensor, precision: torch.dtype) -> int:
    """What a model keeps of a batch between its forward and its backward pass: each storage once, weights aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Oracle(model, ThreatModel("Linf", 0.0), precision=precision).loss_and_gradient(x, y, "margin")
    return sum(storages.values())


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on the device, a container's limit included; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = MEMINFO.read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        limit, used = (path.read_text().strip() for path in LIMITS)
        return min(free, int(limit) - int(used)) if limit != "max" else free
    except (OSError, ValueError):
        return free


def on_fitting_batches(what: str, hardware: Hardware, run: Callable[[Hardware], T]) -> tuple[T, Hardware]:
    """`within_memory`, for what takes its batch size from the hardware: the smaller one is kept for what is to come."""
    found, size = within_memory(what, hardware.batch_size, lambda size: run(replace(hardware, batch_size=size)))
    return found, replace(hardware, batch_size=size)
