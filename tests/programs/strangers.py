"""Small models as other people train them, behind a normalisation that stands outside of them."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset

EPOCHS = {"digits": 40, "mnist": 5, "cifar10": 8}
EPSILON = {"digits": 0.2, "mnist": 0.2, "cifar10": 8 / 255}
"""Linf, of the adversarial trainings: fast adversarial training (Wong et al., arXiv:2001.03994)."""
TRAINING_IMAGES = 4_000
USUAL = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "digits": ((0.3053,), (0.3769,)),
    "half": ((0.5,), (0.5,)),
    "255": ((0.0,), (1 / 255,)),
    "none": ((0.0,), (1.0,)),
}
"""What the trainings normalise by: mean and std, of one value for all channels or of one each."""


def mlp(shape: tuple[int, int, int]) -> nn.Module:
    """Two hidden layers of 128."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()), nn.Linear(128, 10)
    )


def lenet(shape: tuple[int, int, int]) -> nn.Module:
    """Two convolutions with max pooling, two linear layers, no batch norm."""
    features = nn.Sequential(
        *(nn.Conv2d(shape[0], 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
    )
    width = features(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(features, nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 10))


class Block(nn.Module):
    """A residual block of two convolutions with batch norm."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()),
            *(nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)),
        )
        self.shortcut = nn.Conv2d(narrow, wide, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(shape: tuple[int, int, int]) -> nn.Module:
    """A convolution and two residual blocks, with batch norm and no biases."""
    stride = 2 if shape[1] > 8 else 1
    return nn.Sequential(
        *(nn.Conv2d(shape[0], 16, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(Block(16, 32), Block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


class Attention(nn.Module):
    """A vision transformer of two layers of width 48, with LayerNorm before each."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        size = max(2, shape[1] // 7)
        self.patches = nn.Conv2d(shape[0], 48, size, stride=size)
        self.place = nn.Parameter(0.02 * torch.randn(1, (shape[1] // size) ** 2, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT + self.place
        logits: Tensor = self.head(self.layers(tokens).mean(1))
        return logits


ARCHITECTURES: dict[str, Callable[[tuple[int, int, int]], nn.Module]] = {
    "mlp": mlp,
    "lenet": lenet,
    "resnet": resnet,
    "attention": Attention,
}


@dataclass(frozen=True)
class Stranger:
    """A training: network, images, whether on adversarial examples, and what the images are normalised by."""

    dataset: str
    architecture: str
    training: str
    normalisation: str

    @property
    def name(self) -> str:
        """For the table, and for a file."""
        return f"{self.dataset}-{self.architecture}-{self.training}-{self.normalisation}"


def strangers() -> Iterator[Stranger]:
    """The trainings: most networks on most datasets in both ways, behind the usual normalisations in turn."""
    turns = {
        "digits": itertools.cycle(("digits", "half", "255")),
        "mnist": itertools.cycle(("mnist", "mnist", "half")),
        "cifar10": itertools.cycle(("cifar10", "half", "imagenet")),
    }
    for dataset, architecture, training in itertools.product(turns, ARCHITECTURES, ("natural", "adversarial")):
        normalisation = next(turns[dataset])
        if architecture != "attention" or dataset == "digits" or (dataset, training) == ("mnist", "natural"):
            yield Stranger(dataset, architecture, training, normalisation)
    for dataset in turns:
        yield Stranger(dataset, "mlp", "adversarial", "none")
        yield Stranger(dataset, "lenet", "natural", "none")
        yield Stranger(dataset, "resnet", "adversarial", "none")
    for dataset, architecture in (("mnist", "lenet"), ("cifar10", "resnet")):
        yield Stranger(dataset, architecture, "natural", "255")


def images(dataset: str, part: str, data_dir: Path, n: int) -> Split:
    """A balanced part of a dataset."""
    split = load(dataset, part, data_dir=data_dir, quiet=True)
    return split if len(split) <= n else balanced_subset(split, n, seed=0)


def normalised(x: Tensor, normalisation: str) -> Tensor:
    """Images (N, C, H, W) in [0, 1] as the training shows them to the network."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in USUAL[normalisation])
    return (x - mean) / std


def train(stranger: Stranger, split: Split, epochs: int | None = None) -> nn.Module:
    """The network in eval mode, without its normalisation."""
    torch.manual_seed(0)
    epochs = EPOCHS[stranger.dataset] if epochs is None else epochs
    model = ARCHITECTURES[stranger.architecture](tuple(split.x.shape[1:]))  # type: ignore[arg-type]
    steps = epochs * math.ceil(len(split) / 64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    epsilon = EPSILON[stranger.dataset] if stranger.training == "adversarial" else 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(split)).split(64):
            x, y = split.x[rows], split.y[rows]
            x = _augmented(x) if stranger.dataset == "cifar10" else x
            if epsilon:
                x = _one_step(model, x, y, epsilon, stranger.normalisation)
            optimizer.zero_grad()
            F.cross_entropy(model(normalised(x, stranger.normalisation)), y).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _augmented(x: Tensor) -> Tensor:
    """The batch shifted by up to 4 pixels, and every other image flipped."""
    down, right = torch.randint(9, (2,)).tolist()
    shifted = F.pad(x, (4, 4, 4, 4))[:, :, down : down + x.shape[2], right : right + x.shape[3]]
    flips = torch.rand(len(x), 1, 1, 1) < 0.5
    return torch.where(flips, shifted.flip(3), shifted)


def _one_step(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, normalisation: str) -> Tensor:
    """Adversarial images: a random start, and a step of 1.25 epsilon along the sign of the gradient."""
    delta = (2 * torch.rand_like(x) - 1) * epsilon
    start = (x + delta).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(normalised(start, normalisation)), y), start)
    delta = (delta + 1.25 * epsilon * gradient.sign()).clamp(-epsilon, epsilon)
    return (x + delta).clamp(0, 1)
