"""SmallCNN: the MNIST network of TRADES."""

from collections import OrderedDict

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Four unpadded convolutions and three linear layers, with dropout between the first two of them.

    Images (N, 1, 28, 28) in [0, 1] to logits (N, num_classes). A fresh network answers zero for every class: its
    last layer starts at zero, as in the source. The network of the same name in the FAT and GAIRAT code is another one.

    Args:
        drop: dropout probability in [0, 1), active in train mode only.

    Source: Carlini and Wagner, arXiv:1608.04644, as in yaodongyu/TRADES models/small_cnn.py.
    Deviations: none.
    """

    def __init__(self, num_classes: int = 10, drop: float = 0.5) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv1=nn.Conv2d(1, 32, kernel_size=3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 32, kernel_size=3),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 64, kernel_size=3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(64, 64, kernel_size=3),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2),
            )
        )
        last = nn.Linear(200, num_classes)
        self.classifier = nn.Sequential(
            OrderedDict[str, nn.Module](
                fc1=nn.Linear(64 * 4 * 4, 200),
                relu1=nn.ReLU(),
                drop=nn.Dropout(drop),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=last,
            )
        )
        for module in self.feature_extractor:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.feature_extractor(x).flatten(1))
        return logits
