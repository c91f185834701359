"""Wide ResNets (WRN-depth-width) for 32x32 images."""

import math

from torch import Tensor, nn

from attacks.errors import InputError


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions: (N, C, H, W) to (N, C', H/s, W/s).

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.convShortcut: nn.Conv2d | None = None  # spelt as in released state dicts
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.bn1(x).relu()
        residual: Tensor = self.conv2(self.bn2(self.conv1(activated)).relu())
        return residual + (x if self.convShortcut is None else self.convShortcut(activated))


class WideGroup(nn.Module):
    """Blocks of one width, the first of them strided; a module of its own only for the key `layer`."""

    def __init__(self, count: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(in_channels, out_channels, stride)
        self.layer = nn.Sequential(first, *(WideBlock(out_channels, out_channels, 1) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """A 3x3 stem with 16 channels and three groups of (depth - 4) / 6 blocks, 16, 32 and 64 times `width` wide.

    Images (N, 3, 32, 32) in [0, 1] to logits (N, num_classes). What FAT and GAIRAT call WRN-32-10 is WRN-34-10 here:
    the same network, counted differently.

    Args:
        depth: 6 n + 4 with n of at least 1: 10, 16, 22, 28, 34, ...
        width: widening factor, at least 1.
        sub_block1: register the group that some released classes carry and never use. It changes the keys and the
            number of parameters, not the function.

    Raises:
        InputError: a depth or width outside these values.
    Source: Zagoruyko and Komodakis, arXiv:1605.07146; yaodongyu/TRADES models/wideresnet.py.
    Deviations: no dropout (the source's rate is 0); the mean over the last feature map replaces its 8x8 average
        pool; the same for 32x32 images.
    """

    def __init__(self, depth: int, width: int, num_classes: int = 10, sub_block1: bool = False) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 != 0 or width < 1:
            raise InputError(
                f"a wide ResNet needs depth 6 n + 4 (10, 16, 22, 28, 34, ...) and width at least 1, "
                f"got depth {depth} and width {width}; use for instance wrn-28-10"
            )
        count = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.block1 = WideGroup(count, 16, 16 * width, 1)
        if sub_block1:
            self.sub_block1 = WideGroup(count, 16, 16 * width, 1)
        self.block2 = WideGroup(count, 16 * width, 32 * width, 2)
        self.block3 = WideGroup(count, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to logits (N, num_classes)."""
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.bn1(out).relu().mean(dim=(2, 3)))
        return logits
