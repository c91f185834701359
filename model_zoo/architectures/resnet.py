"""ResNet-18 for 32x32 images."""

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch norm, added to a shortcut: (N, C, H, W) to (N, C', H/s, W/s)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        out: Tensor = (residual + self.shortcut(x)).relu()
        return out


class ResNet(nn.Module):
    """A 3x3 stem, four groups of basic blocks of 1, 2, 4 and 8 times `width` channels, global average, a linear layer.

    Images (N, 3, 32, 32) in [0, 1] to logits (N, num_classes).

    Args:
        blocks: number of blocks in each of the four groups.
        width: channels of the stem and the first group; 64 is the published network.

    Source: He et al., arXiv:1512.03385, in the CIFAR form of zjfheart/Friendly-Adversarial-Training models/resnet.py.
    Deviations: the mean over the last feature map replaces its 4x4 average pool; the same for 32x32 images.
    """

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int = 10, *, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _group(blocks[0], width, width, stride=1)
        self.layer2 = _group(blocks[1], width, 2 * width, stride=2)
        self.layer3 = _group(blocks[2], 2 * width, 4 * width, stride=2)
        self.layer4 = _group(blocks[3], 4 * width, 8 * width, stride=2)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to logits (N, num_classes)."""
        out = self.bn1(self.conv1(x)).relu()
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _group(count: int, in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(count - 1)))


def resnet18(num_classes: int = 10, *, width: int = 64) -> ResNet:
    """ResNet-18: two blocks in each group; `width` as of ResNet."""
    return ResNet((2, 2, 2, 2), num_classes, width=width)
