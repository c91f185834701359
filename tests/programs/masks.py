"""Eleven ways to mask the gradients of a model without defending it, each a factory for `--model`: masks.py:NAME."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_zoo.load import load_model
from model_zoo.registry import model_spec

BRIGHT = 0.5
"""A pixel below this has no gradient under `dark`."""


def unmasked() -> nn.Module:
    """The undefended model of digits, by the weights that are shipped."""
    return load_model(model_spec("natural", "digits", Path()), Path(), classes=10)


class Masked(nn.Module):
    """The undefended model behind a mask: `forward(net, x) -> logits`."""

    def __init__(self, mask: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = unmasked()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return self.mask(self.net, x)


class Backward(torch.autograd.Function):
    """Leaves the images as they are, and changes their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0]), None


class StraightThrough(torch.autograd.Function):
    """16 levels on the way forth, the identity on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0]


def rounded(x: Tensor) -> Tensor:
    return (15 * x).round() / 15


def sign_flipped() -> nn.Module:
    return Masked(lambda net, x: net(Backward.apply(x, torch.neg)))


def permuted() -> nn.Module:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    return Masked(lambda net, x: net(Backward.apply(x, lambda g: g.flatten(1)[:, order].view_as(g))))


def sine() -> nn.Module:
    return Masked(lambda net, x: net(x + 0.004 * torch.sin(2000 * x)))


def dark() -> nn.Module:
    return Masked(lambda net, x: net(torch.where(x < BRIGHT, x.detach(), x)))


def rounding() -> nn.Module:
    return Masked(lambda net, x: net(rounded(x)))


def logits_x30() -> nn.Module:
    return Masked(lambda net, x: 30 * net(x))


def logits_x300() -> nn.Module:
    return Masked(lambda net, x: 300 * net(x))


def straight_through() -> nn.Module:
    return Masked(lambda net, x: net(StraightThrough.apply(x)))


def purified_at_test() -> nn.Module:
    """Three steps towards more of the class that is largest."""

    def purified(net: nn.Module, x: Tensor) -> Tensor:
        z = x.detach()
        with torch.enable_grad():
            for _ in range(3):
                z = z.requires_grad_()
                (gradient,) = torch.autograd.grad(net(z).log_softmax(1).amax(1).sum(), z)
                z = (z + 0.03 * gradient.sign()).clamp(0, 1).detach()
        logits: Tensor = net(x + (z - x).detach())
        return logits

    return Masked(purified)


def detached() -> nn.Module:
    """The network's own way is cut; what is left of the gradient is that of a side way without a say."""
    side = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))

    def cut(net: nn.Module, x: Tensor) -> Tensor:
        beside = x.flatten(1) @ side.to(x)
        logits: Tensor = net(x.detach()) + (beside - beside.detach())
        return logits

    return Masked(cut)


def noise() -> nn.Module:
    return Masked(lambda net, x: net(x + 0.1 * torch.randn_like(x)))


MASKS = (
    *(sign_flipped, permuted, sine, dark, rounding, logits_x30, logits_x300),
    *(straight_through, purified_at_test, detached, noise),
)
