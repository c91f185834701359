"""Masks behind the last layer of digits' `madry`, each a factory for `--model`: the class is that of the network.

`binarization` hides its points in what the last layer reads, and cannot see them. All but those of UNSEEN were there
when the checks `other-loss` and `together` were made.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.load import load_model
from model_zoo.registry import model_spec


class MaskedHead(nn.Module):
    """An adversarially trained network and what becomes of its logits: `change(logits, x) -> logits`."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = load_model(model_spec("madry", "digits", Path()), Path(), classes=10)
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


MASKS = (wavering_temperature, slow_temperature, inverse_norm, wavering_power)
UNSEEN = (wavering_runner_up, saturated_logits)
