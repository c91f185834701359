"""How a run uses the machine. It is recorded beside the numbers, and no part of their identity."""

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

import torch

from attacks.spec import CHUNK_SIZE

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's mallopt(3)."""


@dataclass(frozen=True)
class Hardware:
    """Where and how a run computes.

    Args:
        device: "cpu" or "cuda".
        precision: of the search; judging is always float32.
        batch_size: images attacked at a time, at most.
        workers: processes that compute chunks side by side, on the CPU each on one thread.
        finds_batch: whether nobody said how many that are: a smaller batch is taken where this one does not fit into
            the memory that is free, and fewer images a task where workers would wait for each other.
        executor: "local" for processes of this machine, "ray" for a cluster's.
        gpus_per_worker: of Ray's workers, which compute on the CPU where it is 0; may be a fraction.
        finds_precision: whether workers take the fastest precision of their own device, which this process may lack.
        keeps_images: whether adversarial images are written beside the verdicts.
    """

    device: torch.device
    precision: torch.dtype
    batch_size: int
    workers: int = 1
    finds_batch: bool = False
    executor: str = "local"
    gpus_per_worker: float = 0.0
    keeps_images: bool = False
    finds_precision: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether chunks are computed by processes that share no memory with this one; no GPU survives a fork."""
        return self.executor == "ray" or (self.workers > 1 and self.device.type == "cuda")

    @property
    def device_of_workers(self) -> torch.device:
        """What chunks are computed on: of Ray's workers what Ray gives them, whatever this process has."""
        if self.executor != "ray":
            return self.device
        return torch.device("cuda" if self.gpus_per_worker else "cpu")


AUTO_BATCH_SIZES = {"cpu": CHUNK_SIZE, "cuda": 4 * CHUNK_SIZE}
"""By kind of device: what larger ones save on a CPU is in docs/scale.md; on a GPU nobody has measured."""


def auto_batch_size(device: torch.device) -> int:
    """The most images that are attacked at a time where nobody says how many; fewer where memory does not suffice."""
    return AUTO_BATCH_SIZES.get(device.type, CHUNK_SIZE)


def keep_freed_memory() -> None:
    """Have this process keep the memory of large tensors when they are freed, where its C library is glibc.

    Otherwise every pass gets its activations anew from the system, page by page, which costs time.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@dataclass(frozen=True)
class Resources:
    """What workers may be given. cpus: cores; gpus: as Ray counts them, a fraction where some are shared."""

    cpus: int
    gpus: float

    def room_for(self, gpus_per_worker: float) -> int:
        """How many workers fit, each with a core, or with this share of a GPU; maybe none."""
        if not gpus_per_worker:
            return self.cpus
        if gpus_per_worker < 1:
            return int(self.gpus) * workers_on_one_gpu(gpus_per_worker)
        return int(self.gpus / gpus_per_worker)


def own_resources() -> Resources:
    """Of this machine, as far as this process may use it."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Resources(cpus, float(torch.cuda.device_count()))


def workers_on_one_gpu(share: float) -> int:
    """How many of Ray's workers one GPU holds, each with this share of it: a share is not spread over two."""
    return max(1, int(1 / share))


def device_name(hardware: Hardware) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name() if hardware.device.type == "cuda" else "cpu"


def describe(hardware: Hardware) -> str:
    """One line for the head of a table."""
    device = (
        torch.cuda.get_device_name() if hardware.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    return f"{device}, search in {hardware.precision}, batches of {hardware.batch_size}".replace("torch.", "")


PACKAGES = ("torch", "torchvision", "numpy", "foolbox", "pyautoattack")
"""Those that numbers depend on."""


def versions(device: torch.device) -> dict[str, str]:
    """Of the packages that numbers depend on; on a GPU of CUDA, cuDNN and the driver, too."""
    of_packages = {name: version(name) for name in PACKAGES}
    if device.type != "cuda":
        return of_packages
    newest = torch._C._cuda_getDriverVersion()  # type: ignore[attr-defined] # of CUDA that the driver runs: 12040 is 12.4
    driver = f"{newest // 1000}.{newest % 1000 // 10}"
    return {
        **of_packages,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": driver,
    }


def versions_text(device: torch.device) -> str:
    """The same as NAME=VERSION, one after the other."""
    return " ".join(f"{name}={text}" for name, text in versions(device).items())
