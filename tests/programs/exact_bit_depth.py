"""What withstands every attack on a model that rounds to one bit: python tests/programs/exact_bit_depth.py [N [FLIPS]].

A pixel that is further from 1/2 than epsilon cannot be rounded the other way, so of an image with m pixels that are
nearer there are exactly 2**m rounded images in its ball. All of them are classified, up to FLIPS (20) pixels an image:
the robust accuracy is exact, where an attack only bounds it. Images with more are counted and left out.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmark.data.datasets import load
from benchmark.suites.models import models_for
from benchmark.suites.registry import SUITES
from model_zoo.load import load_model

NAME = "bit-depth-1"
BATCH = 8192


def can_flip(x: Tensor, epsilon: float) -> Tensor:
    """Which pixels of the images can be rounded either way: like x, bool. At exactly 1/2 torch rounds down, to even."""
    return ((x - epsilon).clamp(0, 1).round() != (x + epsilon).clamp(0, 1).round()).flatten(1)


@torch.no_grad()
def withstands_all(network: nn.Module, x: Tensor, label: int, flips: Tensor) -> bool:
    """Whether each of the rounded images that x (C, H, W) can be turned into has the label.

    Args:
        flips: (C*H*W,) bool, the pixels that can be rounded either way.
    """
    places = flips.nonzero()[:, 0]
    for numbers in DataLoader(torch.arange(2 ** len(places)), batch_size=BATCH):  # type: ignore[arg-type]
        images = x.flatten().round().repeat(len(numbers), 1)
        images[:, places] = (numbers[:, None] >> torch.arange(len(places)) & 1).to(images)
        if bool((network(images.view(-1, *x.shape)).argmax(1) != label).any()):
            return False
    return True


def main() -> None:
    count, most = (int(word) for word in (sys.argv[1:] + ["500", "20"][len(sys.argv) - 1 :]))
    suite = SUITES["digits-masked"]
    model = load_model(models_for("digits-masked", Path("checkpoints"))[NAME], Path("checkpoints"), classes=10)
    split = load(suite.dataset, "test", data_dir=Path("data"))
    x, y = split.x[:count], split.y[:count]
    with torch.no_grad():
        correct = model(x).argmax(1) == y
    flips = can_flip(x, suite.threat.epsilon)
    sizes = flips.sum(1)
    print(
        f"{NAME}, {suite.threat}, {count} images: {int(correct.sum())} correct, pixels that flip: median "
        f"{int(sizes.median())}, most {int(sizes.max())}"
    )
    known = sizes <= most
    standing = [
        withstands_all(model, image, int(label), flip)
        for image, label, flip in zip(x[known & correct], y[known & correct], flips[known & correct], strict=True)
    ]
    print(
        f"{int((~known & correct).sum())} correct images have more than {most}; of the other {int(known.sum())} images "
        f"{sum(standing)} withstand everything: {100 * sum(standing) / int(known.sum()):.1f}%"
    )


if __name__ == "__main__":
    main()
