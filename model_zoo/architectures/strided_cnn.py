"""StridedCNN: the MNIST network of fast adversarial training."""

from torch import nn

from model_zoo.architectures.strided_conv import HalvingConv2d


class StridedCNN(nn.Sequential):
    """Two strided 4x4 convolutions and two linear layers.

    Images (N, 1, 28, 28) in [0, 1] to logits (N, num_classes). It is a plain sequence, so that its state-dict keys
    (`0.weight` ... `7.bias`) are those of the source.

    Source: Wong et al., arXiv:2001.03994, locuslab/fast_adversarial MNIST/mnist_net.py; the "small" network of
        locuslab/convex_adversarial examples/problems.py.
    Deviations: none.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            HalvingConv2d(1, 16),
            nn.ReLU(),
            HalvingConv2d(16, 32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            nn.ReLU(),
            nn.Linear(100, num_classes),
        )
