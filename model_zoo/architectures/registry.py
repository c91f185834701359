"""The table of architectures, in display order."""

import math
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

from torch import nn

from attacks.models.normalisation import Normalize
from attacks.names import by_name, lookup
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.architectures.digits_small import DigitsSmall
from model_zoo.architectures.head import with_mlp_head
from model_zoo.architectures.preact_resnet import preact_resnet18
from model_zoo.architectures.resnet import resnet18
from model_zoo.architectures.small_cnn import SmallCNN
from model_zoo.architectures.strided_cnn import StridedCNN
from model_zoo.architectures.techniques import DecisionTree, Linear, NearestNeighbours
from model_zoo.architectures.wide_resnet import WideResNet
from model_zoo.masked.registry import find_mask


@dataclass(frozen=True)
class ArchitectureSpec:
    """One network that can be built by name.

    Attributes:
        build: number of classes K to a fresh module: images (N, *input_shape) in [0, 1] to logits (N, K).
        input_shape: (C, H, W).
        paper: where the network comes from.
    """

    name: str
    _: KW_ONLY
    build: Callable[[int], nn.Module]
    input_shape: tuple[int, int, int]
    paper: str


def _wide(depth: int, width: int) -> ArchitectureSpec:
    return ArchitectureSpec(
        f"wrn-{depth}-{width}",
        build=lambda num_classes: WideResNet(depth, width, num_classes),
        input_shape=(3, 32, 32),
        paper="Zagoruyko and Komodakis, arXiv:1605.07146",
    )


_SPECS = (
    ArchitectureSpec("digits-cnn", build=DigitsCNN, input_shape=(1, 8, 8), paper="none (the project's own)"),
    ArchitectureSpec("digits-small", build=DigitsSmall, input_shape=(1, 8, 8), paper="none (the project's own)"),
    ArchitectureSpec(
        "small-cnn", build=SmallCNN, input_shape=(1, 28, 28), paper="Zhang et al. (TRADES), arXiv:1901.08573"
    ),
    ArchitectureSpec(
        "strided-cnn", build=StridedCNN, input_shape=(1, 28, 28), paper="Wong et al. (fast AT), arXiv:2001.03994"
    ),
    ArchitectureSpec("resnet-18", build=resnet18, input_shape=(3, 32, 32), paper="He et al., arXiv:1512.03385"),
    ArchitectureSpec(
        "resnet-18-w16",
        build=lambda num_classes: resnet18(num_classes, width=16),
        input_shape=(3, 32, 32),
        paper="He et al., arXiv:1512.03385; a quarter of the channels",
    ),
    ArchitectureSpec(
        "preact-resnet-18", build=preact_resnet18, input_shape=(3, 32, 32), paper="He et al., arXiv:1603.05027"
    ),
    _wide(28, 10),
    _wide(34, 10),
)

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}
"""What an architecture of a classical technique, DATASET-PART, takes."""
TREE_NODES = 8192


ARCHITECTURES = by_name(_SPECS, "architecture")


MLP = "+mlp"
"""Behind an architecture's name: the same with a hidden layer in its head."""


NORMALISED = "+cifar10-norm"
"""Behind an architecture's name: the same, behind CIFAR-10's usual mean and deviation as its first layer."""


def find(name: str) -> ArchitectureSpec:
    """The architecture called `name`; any wrn-DEPTH-WIDTH is one, in the table or not, and so is any BASE+PART.

    So are DATASET-logistic, DATASET-svm, DATASET-tree, and DATASET-knn-N, nearest neighbours among N images.

    A part is "mlp", "cifar10-norm", or a mask with its setting (`masked/registry.py`), as in digits-cnn+thermometer-16.

    Raises:
        InputError: no such architecture; the message gives the nearest name.
    """
    base, plus, part = name.rpartition("+")
    if plus:
        inner = find(base)
        return replace(inner, name=name, build=_with_part(part, inner))
    wide = re.fullmatch(r"wrn-([1-9][0-9]{0,3})-([1-9][0-9]{0,3})", name)
    if name not in ARCHITECTURES and wide:
        return _wide(int(wide[1]), int(wide[2]))
    technique = re.fullmatch(r"(digits|mnist)-(?:(logistic|svm|tree)|knn-([1-9][0-9]{0,6}))", name)
    if technique:
        return _technique(name, SHAPES[technique[1]], technique[2] or "knn", int(technique[3] or 0))
    return lookup(name, ARCHITECTURES, "architecture")


def _technique(name: str, shape: tuple[int, int, int], part: str, images: int) -> ArchitectureSpec:
    pixels = math.prod(shape)
    builds: dict[str, Callable[[int], nn.Module]] = {
        "tree": lambda num_classes: DecisionTree(num_classes, TREE_NODES),
        "knn": lambda num_classes: NearestNeighbours(num_classes, images, pixels),
    }
    linear: Callable[[int], nn.Module] = lambda num_classes: Linear(num_classes, pixels)  # noqa: E731
    return ArchitectureSpec(
        name, build=builds.get(part, linear), input_shape=shape, paper="as in Papernot et al., arXiv:1605.07277"
    )


def _with_part(part: str, inner: ArchitectureSpec) -> Callable[[int], nn.Module]:
    """What builds an architecture with a part added to it, or around it."""
    added = {MLP: with_mlp_head, NORMALISED: _normalised}.get(f"+{part}")
    if added is not None:
        return lambda num_classes: added(inner.build(num_classes))
    mask, setting = find_mask(part)
    return lambda num_classes: mask.build(inner.build(num_classes), num_classes, inner.input_shape, setting)


def _normalised(network: nn.Module) -> nn.Module:
    return nn.Sequential(Normalize((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)), network)


def build(name: str, num_classes: int = 10) -> nn.Module:
    """A fresh network in train mode: images (N, C, H, W) in [0, 1] to logits (N, num_classes).

    Raises:
        InputError: no such architecture, or a wide ResNet of an impossible depth.
    """
    return find(name).build(num_classes)
