"""In what precision attacks search: the fastest that the device has, where images are large enough to gain by it."""

import math

import torch
from torch import Tensor

from attacks.errors import InputError

TINY_IMAGE = 256
"""Pixels times channels. So small a network gains nothing from a second thread, bfloat16 or channels_last."""


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
