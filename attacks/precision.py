"""In what precision attacks search, the fastest where images are large enough to gain by it; and what float32 means."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attacks.errors import InputError

TINY_IMAGE = 256
"""Pixels times channels. So small a network gains nothing from a second thread, bfloat16 or channels_last."""

KERNELS: Sequence[Any] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.rnn,  # type: ignore[attr-defined]
)
"""Whatever may compute float32 in TF32 or bfloat16 instead, each with a setting of its own."""
OLDER: Sequence[Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
"""Those with an older switch, `allow_tf32`, which may not be read while it contradicts the newer settings."""


@contextmanager
def full_float32() -> Iterator[None]:
    """float32 is float32 in the block, on every device: no TF32, no bfloat16 in its place.

    It sets what each kind of kernel reads in the end, whichever of PyTorch's switches the caller, or the model, used:
    `fp32_precision` of a backend or of all, `allow_tf32`, `set_float32_matmul_precision`. The older switches can be
    read in the block. Afterwards every setting that could be read is as it was.
    """
    before = [kernel.fp32_precision for kernel in KERNELS]
    allowed = [_read(partial(getattr, backend, "allow_tf32")) for backend in OLDER]
    matmul = _read(torch.get_float32_matmul_precision)
    try:
        for backend in OLDER:
            backend.allow_tf32 = False
        for kernel in KERNELS:
            kernel.fp32_precision = "ieee"
        yield
    finally:
        for backend, value in zip(OLDER, allowed, strict=True):
            if value is not None:
                backend.allow_tf32 = value
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        for kernel, precision in zip(KERNELS, before, strict=True):
            kernel.fp32_precision = "none"  # what its backend says
            if kernel.fp32_precision != precision:
                kernel.fp32_precision = precision


def _read(switch: Callable[[], Any]) -> Any:
    """What an older switch says; None where it contradicts the newer ones."""
    try:
        return switch()
    except RuntimeError:
        return None


def is_tiny(x: Tensor) -> bool:
    """Whether images (N, C, H, W) are so small that the machine's parallelism costs more than it gives."""
    return math.prod(x.shape[1:]) <= TINY_IMAGE


def fastest_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it faster than float32 (AMX, AVX512-BF16, Ampere and newer), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bfloat16 = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if has_bfloat16 else torch.float32


def precision_for(asked: str, x: Tensor, device: torch.device) -> torch.dtype:
    """In what the search computes.

    Args:
        asked: "fp32", "bf16", or "auto" for the device's fastest, but float32 for tiny images, which gain by no other.
        x: (N, C, H, W) images.
    """
    if asked not in ("auto", "fp32", "bf16"):
        raise InputError(f"precision must be auto, fp32 or bf16, got {asked!r}")
    if asked == "auto":
        return torch.float32 if is_tiny(x) else fastest_precision(device)
    return torch.bfloat16 if asked == "bf16" else torch.float32
