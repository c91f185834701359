"""Running out of memory: what it looks like (PyTorch has no exception of its own for the CPU), and smaller batches."""

import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from attacks.errors import InputError, one_line

T = TypeVar("T")

NO_MEMORY = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for its workspace
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN: none whose workspace fits
)
"""What PyTorch's RuntimeError says where the CPU's allocator, CUDA, cuBLAS or cuDNN found no memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def within_memory(what: str, batch_size: int, run: Callable[[int], T]) -> tuple[T, int]:
    """Run with a batch size, halved until its memory suffices, which changes no draw.

    Args:
        what: names the run in what is printed.

    Returns: what the run returns, and the batch size for what is to come.
    Raises: InputError where a single image is too much.
    """
    while True:
        try:
            return run(batch_size), batch_size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise InputError(
                    f"{what}: out of memory with a single image; use another device ({one_line(error)})"
                ) from error
        batch_size //= 2
        print(f"{what}: out of memory, going on with batches of {batch_size}", file=sys.stderr)
