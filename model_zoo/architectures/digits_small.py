"""The smallest network for the 8x8 digits: few enough ReLUs for complete verification."""

from torch import nn


class DigitsSmall(nn.Sequential):
    """A strided convolution and two linear layers, of 192 ReLUs in all.

    Images (N, 1, 8, 8) in [0, 1] to logits (N, num_classes).

    Source: none, this network is the project's own.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(1, 8, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, num_classes),
        )
