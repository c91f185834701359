"""A small convolutional network for the 8x8 digits: trained in seconds on a CPU."""

from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """Two convolutions and two linear layers; no batch norm and no dropout, so train and eval mode are the same.

    Images (N, 1, 8, 8) in [0, 1] to logits (N, num_classes).

    Source: none, this network is the project's own.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, num_classes)
        self.act1, self.act2, self.act3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 8, 8) in [0, 1] to logits (N, num_classes)."""
        features = self.act2(self.conv2(self.act1(self.conv1(x))))
        logits: Tensor = self.fc2(self.act3(self.fc1(features.flatten(1))))
        return logits
