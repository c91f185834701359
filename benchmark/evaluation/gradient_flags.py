"""Caveats about a model's gradients: images that have none, and forward passes that take some themselves."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel

FEW = 2.0
"""Up to this percentage of images without gradient there is no flag; no model of digits and mnist has any."""

TAKES_GRADIENTS = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


class GradientWatch(TorchFunctionMode):
    """While it is entered, sees every torch function called from Python, and whether one of them takes gradients."""

    takes_gradients = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.takes_gradients |= func in TAKES_GRADIENTS
        return func(*args, **(kwargs or {}))


def zero_gradients(model: nn.Module, parts: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The percentage of images without a gradient, by cross-entropy as by the margin of the logits; 0 of none.

    Args:
        parts: images (N, C, H, W), classified correctly, and their labels (N,), on the device.

    Raises: RuntimeError where the logits have no gradient at all, InputError where it is not finite.
    """
    oracle = Oracle(model, ThreatModel("Linf", 0.0), demands_finite=True)
    zero = n = 0
    for x, y in parts:
        flat = _is_flat(oracle, x, y, "cross-entropy")
        if flat.any():  # few are, and a second gradient costs as much as the first
            zero += int((flat & _is_flat(oracle, x, y, "margin")).sum())
        n += len(x)
    oracle.settle()
    return 100 * zero / max(n, 1)


def _is_flat(oracle: Oracle, x: Tensor, y: Tensor, loss: str) -> Tensor:
    """(N,) bool: the gradient of the loss is exactly zero."""
    _, gradient = oracle.loss_and_gradient(x, y, loss)
    return (gradient.flatten(1) == 0).all(1)
