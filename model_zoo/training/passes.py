"""What a training costs: backward passes, by whomever they are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from model_zoo.bounds.tracing import changes_nothing


@dataclass
class Passes:
    """backwards: how many images a gradient was propagated for."""

    backwards: int = 0


@contextmanager
def counted(*models: nn.Module | None) -> Iterator[Passes]:
    """Count the passes through some models: of inner attacks, of the loss, and of a gradient's own gradient."""
    passes = Passes()

    def backward(gradient: Tensor) -> None:
        passes.backwards += len(gradient)

    @changes_nothing
    def forward(_module: nn.Module, _inputs: tuple[Any, ...], logits: Tensor) -> None:
        if logits.requires_grad:
            logits.register_hook(backward)

    hooks = [model.register_forward_hook(forward) for model in models if model is not None]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()
