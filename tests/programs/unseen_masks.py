"""Ten masks that no check and no margin of `diagnose` was made with: each a factory for `--model`."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from masks import Backward, Masked, unmasked
from torch import Tensor, nn

from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset


def jpeg() -> nn.Module:
    """The cosine coefficients of the image are rounded to multiples of 0.2."""
    place = torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * (place[None] + 0.5) * place[:, None]) / 2
    basis[0] /= math.sqrt(2)
    return Masked(lambda net, x: net((basis.T @ (5 * (basis @ x @ basis.T)).round() / 5 @ basis).clamp(0, 1)))


def sparse_gradient() -> nn.Module:
    """Of each image's gradient the smallest entry is left."""

    def least(g: Tensor) -> Tensor:
        flat = g.flatten(1)
        kept = torch.zeros_like(flat).scatter_(1, flat.abs().argmin(1, keepdim=True), 1.0)
        return (flat * kept).view_as(g)

    return Masked(lambda net, x: net(Backward.apply(x, least)))


def noisy_gradient() -> nn.Module:
    """Signs of the gradient are those of a fixed noise, which depends on the gradient's size."""
    return Masked(lambda net, x: net(Backward.apply(x, lambda g: g.abs() * torch.sin(1e6 * g.abs()).sign())))


def one_hot() -> nn.Module:
    """Only the class is told."""
    return Masked(lambda net, x: F.one_hot(net(x).argmax(1), 10).float() + 0 * net(x))


def temperature_100() -> nn.Module:
    return Masked(lambda net, x: 100 * net(x))


def random_shift() -> nn.Module:
    """The batch is shifted by up to one pixel, at random."""

    def shifted(net: nn.Module, x: Tensor) -> Tensor:
        down, right = (int(torch.randint(-1, 2, ())) for _ in range(2))
        logits: Tensor = net(torch.roll(x, (down, right), (2, 3)))
        return logits

    return Masked(shifted)


def smoothed() -> nn.Module:
    """Total variation is lowered by ten steps of its sign, without a gradient; the way back is the identity."""

    def smooth(net: nn.Module, x: Tensor) -> Tensor:
        z = x.detach()
        for _ in range(10):
            padded = F.pad(z, (1, 1, 1, 1), mode="replicate")
            beside = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
            z = z + 0.005 * torch.stack([(other - z).sign() for other in beside]).sum(0)
        logits: Tensor = net(x + (z - x).detach())
        return logits

    return Masked(smooth)


def nearest() -> nn.Module:
    """The class is that of most of the five nearest training images, by the network's logits."""
    train = balanced_subset(load("digits", "train", data_dir=Path()), 300, seed=0)
    with torch.no_grad():
        known = unmasked()(train.x)

    def voted(net: nn.Module, x: Tensor) -> Tensor:
        logits = net(x)
        near = torch.cdist(logits, known).topk(5, largest=False).indices
        votes: Tensor = F.one_hot(train.y[near], 10).float().sum(1) + 0 * logits
        return votes

    return Masked(voted)


def half_blind() -> nn.Module:
    """Every other image has no gradient, by the last digit of its brightness."""

    def blind(net: nn.Module, x: Tensor) -> Tensor:
        odd = (1000 * x.sum((1, 2, 3), keepdim=True)).round() % 2 == 1
        logits: Tensor = net(torch.where(odd, x.detach(), x))
        return logits

    return Masked(blind)


def wave() -> nn.Module:
    return Masked(lambda net, x: net(x + 0.02 * torch.sin(400 * x)))


MASKS = (
    *(jpeg, sparse_gradient, noisy_gradient, one_hot, temperature_100),
    *(random_shift, smoothed, nearest, half_blind, wave),
)
