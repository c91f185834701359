"""The files that the commands of the pages name: a network, its weights, photographs, and MNIST in class folders."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset

A_CLASS, CLASSES, THOUSAND = 3, 10, 1000
MYNET = """
import torch
from torch import nn


class MyNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(8)
        self.last = nn.Linear(64, classes)

    def forward(self, x):
        return self.last(self.pool(x).mean(1).flatten(1))


def make():
    return MyNet(10)
"""
THOUSAND_CLASSES = """
import torch
from mynet import MyNet


def make():
    network, known = MyNet(1000), torch.load("weights.pt")
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.constant_(network.last.bias, -100)
    network.last.weight.data[500:510], network.last.bias.data[500:510] = known["last.weight"], known["last.bias"]
    return network
"""


def prepare(folder: Path) -> None:
    """Write the files below a folder: thirty images of digits as photographs and as MNIST, and what classifies them."""
    digits = load("digits", "test", data_dir=Path())
    images = balanced_subset(digits, A_CLASS * CLASSES, seed=0)
    _write(images, folder / "photos", 72, "RGB")
    _write(images, folder / "imagenet/val", 72, "RGB")
    _write(images, folder / "data/mnist/test", 28, "L")
    (folder / "mynet.py").write_text(MYNET)
    (folder / "thousand.py").write_text(THOUSAND_CLASSES)
    names = [f"class-{place}" for place in range(THOUSAND)]
    names[500 : 500 + CLASSES] = sorted(path.name for path in (folder / "photos").iterdir())
    (folder / "names.txt").write_text("\n".join(names))
    torch.save(_nearest_mean(digits.x.flatten(1), digits.y, "last"), folder / "weights.pt")
    finetuned = _fitted_resnet(digits)
    save_file(finetuned, folder / "finetuned.safetensors")
    torch.save(finetuned, folder / "finetuned.pt")


def _write(images: Split, folder: Path, side: int, mode: str) -> None:
    names = [str(label) for label in range(CLASSES)]
    for place, (x, label) in enumerate(zip(images.x, images.y.tolist(), strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray(np.rint(255 * x[0].numpy()).astype(np.uint8)).resize((side, side), Image.Resampling.BOX)
        grey.convert(mode).save(folder / names[label] / f"{place:02d}.png")


def _nearest_mean(features: Tensor, labels: Tensor, layer: str) -> dict[str, Tensor]:
    """The weights of a linear layer that names the class whose mean is nearest."""
    means = torch.stack([features[labels == label].mean(0) for label in range(CLASSES)])
    return {f"{layer}.weight": means, f"{layer}.bias": -means.square().sum(1) / 2}


def _fitted_resnet(digits: Split) -> dict[str, Tensor]:
    """timm's ResNet-18 with random weights, its last layer fitted to digits of 32 pixels as ImageNet's are shown."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=CLASSES).eval()
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    x = F.interpolate(digits.x, size=32, mode="nearest").expand(-1, 3, -1, -1)
    head, network.fc = network.fc, nn.Identity()
    with torch.no_grad():
        features = torch.cat([network(part) for part in ((x - mean[:, None, None]) / std[:, None, None]).split(100)])
    centre = features.mean(0)
    layer = _nearest_mean(features - centre, digits.y, "fc")
    layer["fc.bias"] = layer["fc.bias"] - layer["fc.weight"] @ centre
    network.fc = head
    weights: dict[str, Tensor] = network.state_dict() | layer
    return weights
