"""How a run uses the machine. It is recorded beside the numbers, and no part of their identity."""

from dataclasses import dataclass, replace

import torch

from benchmark.data.split import Split

TINY_IMAGE = 256
"""Pixels times channels. So small a network gains nothing from a second thread, bfloat16 or channels_last."""


def is_tiny(split: Split) -> bool:
    """Whether the images are so small that the machine's parallelism costs more than it gives."""
    return split.x[0].numel() <= TINY_IMAGE


@dataclass(frozen=True)
class Hardware:
    """Where and how a run computes.

    Args:
        device: "cpu" or "cuda".
        precision: of the search; judging is always float32.
        batch_size: images attacked at a time.
        workers: processes that compute chunks side by side, on the CPU each on one thread.
        finds_batch: whether a smaller batch is taken where this one does not fit into the memory that is free.
        executor: "local" for processes of this machine, "ray" for a cluster's.
        gpus_per_worker: of Ray's workers; may be a fraction.
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


def fastest_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it faster than float32 (AMX, AVX512-BF16, Ampere and newer), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bfloat16 = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if has_bfloat16 else torch.float32


def workers_on_one_gpu(share: float) -> int:
    """How many of Ray's workers one GPU holds, each with this share of it: a share is not spread over two."""
    return max(1, int(1 / share))


def describe(hardware: Hardware) -> str:
    """One line for the head of a table."""
    device = (
        torch.cuda.get_device_name() if hardware.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    return f"{device}, search in {hardware.precision}, batches of {hardware.batch_size}".replace("torch.", "")


def halved(hardware: Hardware) -> Hardware:
    """The same with half the batch, for when memory ran out; it changes no draw."""
    return replace(hardware, batch_size=max(1, hardware.batch_size // 2))


VERSIONED = ("torch", "torchvision", "numpy", "foolbox", "pyautoattack")
