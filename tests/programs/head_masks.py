"""Masks behind the last layer of a network, each a factory for `--model`: the class is that of the network.

`binarization` hides its points in what the last layer reads, and cannot see them. The checks `other-loss`, `together`
and `boundary` were made with MASKS in view; what they say of those of UNSEEN changed none of them.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.losses import logit_margin
from model_zoo.load import load_model
from model_zoo.registry import model_spec


def shipped(name: str) -> nn.Module:
    return load_model(model_spec(name, "digits", Path()), Path(), classes=10)


class MaskedHead(nn.Module):
    """A network, unless said otherwise `madry`, and what becomes of its logits: `change(logits, x) -> logits`."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor], name: str = "madry") -> None:
        super().__init__()
        self.net = shipped(name)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net(x), x)


def wave(x: Tensor, frequency: float) -> Tensor:
    """(N, 1) in [-1, 1]: a smooth function of the image, steeper than the network is."""
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(x)
    return torch.sin(frequency * (x.flatten(1) @ direction))[:, None]


def wavering_temperature() -> nn.Module:
    """The logits are large at some images, and small right beside them: there an attack goes, and no further."""
    return MaskedHead(lambda logits, x: logits * torch.exp(2 * wave(x, 10)))


def slow_temperature() -> nn.Module:
    return MaskedHead(lambda logits, x: logits * torch.exp(wave(x, 2)))


def inverse_norm() -> nn.Module:
    """Logits that are far apart are small."""
    return MaskedHead(lambda logits, _: logits / logits.norm(dim=1, keepdim=True) ** 2)


def wavering_power() -> nn.Module:
    """Logits about their mean, to a power that depends on the image."""

    def power(logits: Tensor, x: Tensor) -> Tensor:
        apart = logits - logits.mean(1, keepdim=True)
        return apart.sign() * apart.abs() ** (2 + 1.5 * wave(x, 10))

    return MaskedHead(power)


def margin(logits: Tensor, top: Tensor) -> Tensor:
    """(N, 1) how far the logit of a class (N, 1) is ahead of all others."""
    return logit_margin(logits, top.squeeze(1))[:, None]


def borrowed_confidence() -> nn.Module:
    """The class is that of `rst-stability`, how sure it is that of `natural`: no gradient leads to its boundary."""
    other = shipped("natural")

    def borrowed(logits: Tensor, x: Tensor) -> Tensor:
        top, sure = logits.argmax(1, keepdim=True), other(x)
        return torch.zeros_like(sure).scatter(1, top, 0.2 * F.softplus(margin(sure, top)) + 0.01)

    return MaskedHead(borrowed, "rst-stability")


def softly_borrowed_confidence() -> nn.Module:
    """The same, but for a narrow seam at the boundary, in which the confidence falls to zero."""
    other = shipped("natural")

    def borrowed(logits: Tensor, x: Tensor) -> Tensor:
        top, sure = logits.argmax(1, keepdim=True), other(x)
        seam = torch.tanh(20 * margin(logits, top))
        return torch.zeros_like(sure).scatter(1, top, seam * (0.2 * F.softplus(margin(sure, top)) + 0.01))

    return MaskedHead(borrowed, "rst-stability")


def wavering_runner_up() -> nn.Module:
    """The second largest logit comes closer to the largest, or falls back to the third."""

    def moved(logits: Tensor, x: Tensor) -> Tensor:
        largest = logits.topk(3, dim=1)
        ahead, behind = largest.values[:, :1] - largest.values[:, 1:2], largest.values[:, 1:2] - largest.values[:, 2:]
        by = torch.where(wave(x, 10) > 0, ahead, behind) * wave(x, 10) * 0.9
        return logits + by * F.one_hot(largest.indices[:, 1], 10)

    return MaskedHead(moved)


def saturated_logits() -> nn.Module:
    """No logit is far from 1 or -1."""
    return MaskedHead(lambda logits, _: torch.tanh(2 * (logits - logits.mean(1, keepdim=True))))


MASKS = (wavering_temperature, slow_temperature, inverse_norm, wavering_power, borrowed_confidence)
UNSEEN = (wavering_runner_up, saturated_logits, softly_borrowed_confidence)
