"""Random numbers that belong to images: keyed by (seed, image index, restart, step), never by place in a batch.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a counter-based
generator: a draw is a pure function of its key and counter, so the same on every device, in any order, in any batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Ten rounds of Philox4x32.

    Args:
        counter: (..., 4) int64, each word in [0, 2^32).
        key: (2,) int64, each word in [0, 2^32).

    Returns: (..., 4) int64, each word in [0, 2^32).
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        # The product of two 32-bit words wraps in int64, which leaves its 64 bits right; the mask undoes the sign.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack([c0, c1, c2, c3], -1)


@dataclass(frozen=True)
class Draws:
    """The random numbers of some images, each at its own restart and step.

    Args:
        seed: of the whole run, 64 bits are used.
        index: (N,) int64, the images' indices in their dataset.
        restart: (N,) int64, which start of the attack this is.
        step: (N,) int64, how many steps were taken before the draw.
    """

    seed: int
    index: Tensor
    restart: Tensor
    step: Tensor

    @staticmethod
    def start(seed: int, index: Tensor, restart: Tensor | None = None) -> "Draws":
        """The draws of images before their first step."""
        zero = torch.zeros_like(index)
        return Draws(seed, index, zero if restart is None else restart, zero)

    def uniform(self, shape: Sequence[int], *, stream: int = 0) -> Tensor:
        """(N, *shape) float32 in [0, 1), multiples of 2^-24. `stream` tells apart several draws of one step."""
        return self._fill(_to_unit(self._words(math.prod(shape), stream)), shape)

    def normal(self, shape: Sequence[int], *, stream: int = 0) -> Tensor:
        """(N, *shape) float32 standard normal, by Box and Muller in float64, which few devices round differently."""
        words = self._words(2 * math.prod(shape), stream).double()
        radius = (-2.0 * ((words[:, 0::2] + 1.0) * 2.0**-32).log()).sqrt()
        return self._fill((radius * (2.0 * math.pi * 2.0**-32 * words[:, 1::2]).cos()).float(), shape)

    def _words(self, count: int, stream: int) -> Tensor:
        """(N, count) int64 random words in [0, 2^32)."""
        device = self.index.device
        blocks = torch.arange((count + 3) // 4, device=device)
        per_image = torch.stack([self.step, self.restart * 256 + stream, self.index], -1)  # 256 streams a restart
        counter = torch.cat(
            [
                blocks.view(1, -1, 1).expand(len(self.index), -1, 1),
                per_image.unsqueeze(1).expand(-1, len(blocks), -1),
            ],
            -1,
        )
        key = torch.tensor([self.seed & _MASK, (self.seed >> 32) & _MASK], device=device)
        return philox4x32(counter, key).flatten(1)[:, :count]

    def _fill(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        return values.view(len(self.index), *shape)


def _to_unit(words: Tensor) -> Tensor:
    return (words >> 8).float() * 2.0**-24
