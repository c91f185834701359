"""A substitute of a model that answers with labels alone: trained on synthetic images that the model labels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.errors import InputError

COUNTED = ("period", "reservoir", "reservoir_after")
"""Settings of which 0 means something."""
Labels = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to classes (N,): all that is asked of the model."""


@dataclass(frozen=True)
class SubstituteRecipe:
    """How a substitute is trained.

    Args:
        rounds: of labelling and training; the images are augmented between them.
        epochs: of each round.
        lr, batch_size: of Adam.
        step: lambda, how far an augmented image is from its original, in each pixel, in pixel scale.
        period: tau, after how many rounds the step changes its sign; 0 for never.
        reservoir: kappa, how many images are augmented in a round, drawn from all; 0 for all of them.
        reservoir_after: sigma, in how many rounds all are augmented before.

    Raises: InputError for a recipe that trains nothing.
    """

    rounds: int = 6
    epochs: int = 10
    lr: float = 1e-3
    batch_size: int = 128
    step: float = 0.1
    period: int = 3
    reservoir: int = 0
    reservoir_after: int = 3

    def __post_init__(self) -> None:
        for name, least in {
            **dict.fromkeys(("rounds", "epochs", "batch_size"), 1),
            **dict.fromkeys(COUNTED, 0),
        }.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise InputError(f"lr must be positive, got {self.lr:g}")
        if not 0 < self.step <= 1:
            raise InputError(f"step must be in (0, 1], in pixel scale, got {self.step:g}")

    def signed_step(self, round_: int) -> float:
        """lambda (-1) ** floor(rho / tau) after round rho, counted from 0; Source, Deviations: `train_substitute`."""
        return self.step * (-1.0 if self.period and round_ // self.period % 2 else 1.0)

    def label_count(self, images: int) -> int:
        """How many labels a training asks for that begins with so many images."""
        count = images
        for round_ in range(self.rounds - 1):
            count += self.augmented_count(count, round_)
        return count

    def augmented_count(self, count: int, round_: int) -> int:
        draws = self.reservoir and round_ >= self.reservoir_after
        return min(self.reservoir, count) if draws else count


def train_substitute(
    substitute: nn.Module, labels: Labels, x: Tensor, recipe: SubstituteRecipe, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Train a network on what a model says of a few images, and of others on the way across its boundaries.

    Args:
        substitute: (N, C, H, W) to logits (N, K), trained in place, on the device of x.
        x: (N, C, H, W) in [0, 1], the first images; the model that labels them was not trained on them.
        seed: of order and reservoir.

    Returns: all images (M, C, H, W) that were labelled, with their labels (M,); M is `recipe.label_count(N)`.
    Source: Papernot et al., arXiv:1602.02697, Algorithm 1; periodic step and reservoir: Papernot et al.,
        arXiv:1605.07277, Section 3. Defaults: cleverhans' mnist_blackbox tutorial.
    Deviations: the direction is that of the label's logarithmic probability, which has the probability's signs and does
        not underflow; each reservoir is one draw without replacement. The signs of the periodic step are the paper's,
        +lambda in the first tau rounds; the tutorial begins with -lambda, and keeps +lambda from round 3 on.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(substitute.parameters(), lr=recipe.lr)
    y = labels(x)
    for round_ in range(recipe.rounds):
        substitute.train()
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(x), generator=generator).split(recipe.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(substitute(x[rows]), y[rows]).backward()
                optimizer.step()
        substitute.eval()
        if round_ + 1 < recipe.rounds:
            count = recipe.augmented_count(len(x), round_)
            chosen = torch.arange(len(x)) if count == len(x) else torch.randperm(len(x), generator=generator)[:count]
            fresh = augmented(substitute, x[chosen], y[chosen], recipe.signed_step(round_))
            x, y = torch.cat([x, fresh]), torch.cat([y, labels(fresh)])
    return x, y


def augmented(substitute: nn.Module, x: Tensor, y: Tensor, step: float) -> Tensor:
    """(N, C, H, W) images moved by `step` in each pixel along the sign of their label's Jacobian, clipped to [0, 1]."""
    moved = []
    for points, classes in zip(x.split(500), y.split(500), strict=True):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(-F.cross_entropy(substitute(points), classes, reduction="sum"), points)
        moved.append((points.detach() + step * gradient.sign()).clamp(0.0, 1.0))
    return torch.cat(moved)
