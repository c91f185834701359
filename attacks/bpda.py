"""BPDA: a module's values with the gradient of a stand-in, for parts of a network that mask their gradient."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.errors import InputError

Part = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """The images as they are: the stand-in of whatever leaves an image almost the same."""
    return x


def zero(x: Tensor) -> Tensor:
    """No image at all: the stand-in that gives a part no gradient, as where it is run outside of autograd."""
    return x * 0


class Bpda(nn.Module):
    """The value of `forward_pass` and the gradient of `backward_pass`: backward pass differentiable approximation.

    The value is that of `forward_pass` to the bit, wherever the stand-in is finite. `forward_pass` is run without a
    graph; one that takes gradients itself enables them itself.

    Args:
        forward_pass: tensors (N, ...) to tensors (N, ...); a module's parameters and state belong to this one, too.
        backward_pass: the same shapes, differentiable, and near the first one.

    Raises: InputError where the two have different shapes, when a gradient is asked for.
    Source: Athalye, Carlini and Wagner, arXiv:1802.00420, Section 4.1.
    Deviations: none.
    """

    def __init__(self, forward_pass: Part, backward_pass: Part = identity) -> None:
        super().__init__()
        self.forward_pass, self.backward_pass = forward_pass, backward_pass

    def forward(self, x: Tensor) -> Tensor:
        """Tensors (N, ...) to tensors (N, ...)."""
        with torch.no_grad():
            value = self.forward_pass(x)
        if not torch.is_grad_enabled():
            return value
        stand_in = self.backward_pass(x)
        if stand_in.shape != value.shape:
            raise InputError(
                f"Bpda: expected a backward_pass of the shape of forward_pass, {tuple(value.shape)}, got "
                f"{tuple(stand_in.shape)}; give a stand-in for the same thing"
            )
        return value + (stand_in - stand_in.detach())  # the difference is exactly zero, its gradient is not
