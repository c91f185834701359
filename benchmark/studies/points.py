"""Points of a study's own distribution as images that the attacks take, and classifiers of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.api import attack
from attacks.errors import InputError


@dataclass(frozen=True)
class Pixels:
    """How features become pixels: the range (-width / 2, width / 2) becomes (0, 1), so that no attack is clipped.

    Args:
        width: of the range, in the unit of the features.
    """

    width: float

    def images(self, z: Tensor, epsilon: float) -> Tensor:
        """(N, 1, 1, d) images of features (N, d).

        Raises: InputError where a ball of `epsilon`, in the unit of the features, would leave [0, 1].
        """
        reach = float(z.abs().max()) + epsilon
        if reach > self.width / 2:
            raise InputError(f"expected features within {self.width / 2:g}, got some at {reach:g}; use another seed")
        return (z / self.width + 0.5)[:, None, None, :]

    def features(self, x: Tensor) -> Tensor:
        """(N, d) features of images."""
        return (x.flatten(1) - 0.5) * self.width


class BinaryClassifier(nn.Module):
    """Two logits (-s, s) / 2 of a score s of the features: class 1 where it is positive.

    Args:
        score: features (N, d) to (N, 1) or (N,).
    """

    def __init__(self, score: nn.Module, pixels: Pixels) -> None:
        super().__init__()
        self.score = score
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        s = self.score(self.pixels.features(x)).flatten() / 2
        return torch.stack([-s, s], 1)


def linear_classifier(weight: Tensor, pixels: Pixels) -> BinaryClassifier:
    """The sign of <weight, z>; the weight (d,) is scaled to length 1, which changes no answer."""
    layer = nn.Linear(len(weight), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight / weight.norm())
    return BinaryClassifier(layer, pixels).eval()


@dataclass(frozen=True)
class Errors:
    """Shares in [0, 1], over n points: misclassified when clean, and when clean or under attack."""

    natural: float
    robust: float
    n: int


def measured_errors(model: BinaryClassifier, z: Tensor, y: Tensor, name: str, *, epsilon: float, seed: int) -> Errors:
    """What an attack of the harness shows on features.

    Args:
        z: (N, d); y: (N,) of 0 and 1.
        name: of the attack. epsilon: an Linf radius in the unit of the features.

    Returns: the errors as `attack` judges them.
    """
    x, radius = model.pixels.images(z, epsilon), epsilon / model.pixels.width
    shown = attack(model, x, y, name, epsilon=radius, seed=seed)
    return Errors(1 - float(shown.correct.double().mean()), 1 - float(shown.robust.double().mean()), len(y))


def chance(share: float, n: int) -> float:
    """Three standard errors of a share in [0, 1] that was counted on n points."""
    return 3 * float(np.sqrt(max(share * (1 - share), 1 / n) / n))


def generator(seed: int, *key: int) -> torch.Generator:
    """A generator of a study's data; each key has draws of its own."""
    state = int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state // 2)
