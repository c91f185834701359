"""What a model answers to fixed images, as a digest: it changes with whatever changes the model, wherever that lies."""

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attacks.generators import seeded
from attacks.precision import full_float32

BITS = 10
"""Logits count to this many bits of the largest one: other kernels of the same machine round later ones otherwise."""


def probe_digest(model: nn.Module, *batches: Tensor) -> str:
    """A digest of a model's float32 logits on some images.

    Args:
        model: in eval mode. It keeps what a pass leaves behind in it: load it anew for anything else.
        batches: images (N, C, H, W) on its device.

    Returns: 16 hex digits, the same in every process of a machine as long as the model answers the same; "" for a model
        that takes none of the batches, of which the checks before a run say what is wrong.
    """
    answers = [answer for images in batches for answer in _answers(model, images)]
    return hashlib.sha256("\n".join(answers).encode()).hexdigest()[:16] if answers else ""


def _answers(model: nn.Module, images: Tensor) -> list[str]:
    """What a model answers to a batch, or to a part of it; nothing where it cannot be asked."""
    for n in (len(images), 2, 1):
        with _repeatable(), full_float32(), torch.no_grad():
            try:
                return [_rounded(answer) for answer in _tensors(model(images[:n].clone()))]
            except Exception:  # the user's own code may raise what it likes
                continue
    return []


@contextmanager
def _repeatable() -> Iterator[None]:
    """All generators are seeded in the block, on one thread, and go on after it as if it had not been."""
    threads = torch.get_num_threads()
    with seeded("probe digest"), ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # compiling takes longer than all that is asked here
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
    elif hasattr(output, "logits"):
        yield from _tensors(output.logits)


def _rounded(logits: Tensor) -> str:
    """A tensor's values in units of a power of two, at `BITS` bits of the largest one."""
    values = logits.detach().float().cpu()
    largest = float(values.nan_to_num(0, 0, 0).abs().max()) if values.numel() else 0.0
    exponent = math.frexp(largest)[1] - BITS
    steps = torch.ldexp(values.double(), torch.tensor(-exponent)).round()
    return f"{tuple(values.shape)} {exponent} {(steps + 0.0).tolist()}"  # + 0.0: no negative zero
