"""PreActResNet-18 for 32x32 images, in the three versions that released checkpoints use."""

from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions: (N, C, H, W) to (N, C', H/s, W/s).

    Args:
        preactivated_shortcut: whether a shortcut with a convolution reads the activated input, not the raw one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, preactivated_shortcut: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            )
        self.preactivated_shortcut = preactivated_shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.bn1(x).relu()
        residual: Tensor = self.conv2(self.bn2(self.conv1(activated)).relu())
        if self.shortcut is None:
            return residual + x
        straight: Tensor = self.shortcut(activated if self.preactivated_shortcut else x)
        return residual + straight


class PreActResNet(nn.Module):
    """A bare 3x3 stem, four groups of pre-activation blocks (64, 128, 256, 512 channels), one linear layer.

    Images (N, 3, 32, 32) in [0, 1] to logits (N, num_classes).

    Three versions are in use. Those of fast_adversarial and robust_overfitting have the same keys and shapes
    but are different functions, so that a checkpoint loads into the wrong one without a complaint:

        fast_adversarial        final_bn=True,  preactivated_shortcut=False (the default)
        robust_overfitting      final_bn=True,  preactivated_shortcut=True
        FAT                     final_bn=False, preactivated_shortcut=True

    Args:
        blocks: number of blocks in each of the four groups.
        final_bn: batch norm (key `bn`) and ReLU before the global average.
        preactivated_shortcut: see PreActBlock.

    Source: He et al., arXiv:1603.05027; locuslab/fast_adversarial CIFAR10/preact_resnet.py,
        zjfheart/Friendly-Adversarial-Training models/preact_resnet.py.
    Deviations: the mean over the last feature map replaces its 4x4 average pool; the same for 32x32 images.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_classes: int = 10,
        *,
        final_bn: bool = True,
        preactivated_shortcut: bool = False,
    ) -> None:
        super().__init__()

        def group(count: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            layers = nn.Sequential()
            for index in range(count):
                source, step = (in_channels, stride) if index == 0 else (out_channels, 1)
                layers.append(PreActBlock(source, out_channels, step, preactivated_shortcut=preactivated_shortcut))
            return layers

        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        self.layer1 = group(blocks[0], 64, 64, 1)
        self.layer2 = group(blocks[1], 64, 128, 2)
        self.layer3 = group(blocks[2], 128, 256, 2)
        self.layer4 = group(blocks[3], 256, 512, 2)
        self.bn = nn.BatchNorm2d(512) if final_bn else None
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to logits (N, num_classes)."""
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        if self.bn is not None:
            out = self.bn(out).relu()
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def preact_resnet18(
    num_classes: int = 10, *, final_bn: bool = True, preactivated_shortcut: bool = False
) -> PreActResNet:
    """PreActResNet-18: two blocks in each group; without options the version of fast_adversarial."""
    return PreActResNet((2, 2, 2, 2), num_classes, final_bn=final_bn, preactivated_shortcut=preactivated_shortcut)
