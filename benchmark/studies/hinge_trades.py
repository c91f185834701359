"""TRADES of two classes by the hinge loss, both sides of its bound, and a distribution that attains it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.api import attack
from attacks.draws import Draws
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DefenseSpec

THETA = 0.5
"""By how much the built distribution's first half is likelier of label 1 than of label 0."""
STEPS = 20


def score(logits: Tensor) -> Tensor:
    """(N,) f(x): the second of two logits minus the first; its sign is the class."""
    return logits[:, 1] - logits[:, 0]


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, lam: float) -> Tensor:
    """phi(y f(x)) + max phi(f(x') f(x) / lambda) with the hinge loss phi.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) of 0 and 1. lam: lambda.

    Returns: a scalar.
    Source: Zhang et al., arXiv:1901.08573, Equation 3 and Section 5.1.
    """
    with torch.no_grad():
        predicted = model(x).argmax(1)
    x_adv = ctx.craft(model, x, predicted, loss="margin", start="gaussian")  # the hinge loss falls with f(x') f(x)
    clean, adversarial = score(model(x)), score(model(x_adv))
    return (F.relu(1 - (2 * y - 1) * clean) + F.relu(1 - clean * adversarial / lam)).mean()


HINGE = DefenseSpec(
    "trades-hinge",
    batch_loss=batch_loss,
    model_name="trades-hinge",
    is_robust=True,
    paper="Zhang et al., arXiv:1901.08573",
    summary="TRADES of two classes by the hinge loss",
    params={"lam": 5.0},
)


def both_sides(model: nn.Module, images: Split, threat: ThreatModel, *, lam: float, seed: int) -> dict[str, float]:
    """Robust error, the surrogate's risk, and the mean of max phi(f(x') f(x) / lambda), as attacks find them.

    Source: Zhang et al., arXiv:1901.08573, Theorem 3.1; of the hinge loss psi is the identity.
    """
    shown = attack(model, images.x, images.y, "pgd-40", epsilon=threat.epsilon, seed=seed, index=images.index)
    with torch.no_grad():
        clean = score(model(images.x))
    ctx = TrainingContext(threat, Draws.start(seed, images.index, torch.zeros_like(images.index)), STEPS, 0.1)
    x_adv = ctx.craft(model, images.x, (clean > 0).long(), loss="margin", start="uniform")
    with torch.no_grad():
        unstable = F.relu(1 - clean * score(model(x_adv)) / lam)
    return {
        "natural_error": 1 - shown.clean_acc / 100,
        "robust_error": 1 - shown.robust_acc / 100,
        "surrogate_risk": float(F.relu(1 - (2 * images.y - 1) * clean).double().mean()),
        "instability": float(unstable.double().mean()),
    }


class Built(nn.Module):
    """f on the unit interval, by linear interpolation between knots: x (N, 1, 1, 1) to two logits."""

    def __init__(self, delta: float) -> None:
        super().__init__()
        self.register_buffer("at", torch.tensor([0.0, 0.3, 0.4, 0.6, 0.65, 1.0]))
        self.register_buffer("value", torch.tensor([-delta, -delta, 2.0, 1.0, -(delta**3), -(delta**3)]))

    def forward(self, x: Tensor) -> Tensor:
        at, value, place = self.get_buffer("at"), self.get_buffer("value"), x.flatten()
        right = torch.searchsorted(at, place.detach().contiguous()).clamp(1, len(at) - 1)
        share = (place - at[right - 1]) / (at[right] - at[right - 1])
        f = value[right - 1] + share * (value[right] - value[right - 1])
        return torch.stack([-f, f], 1) / 2


def built_images(n: int) -> Split:
    """n points: half at 0.1, where a share (1 + theta) / 2 has label 1 and f says 0; half at 0.6, all of label 1.

    At 0.6 the classifier is right, and its boundary is near. n is a multiple of 8.
    """
    x = torch.full((n, 1, 1, 1), 0.6)
    x[: n // 2] = 0.1
    y = torch.ones(n, dtype=torch.int64)
    y[: round(n / 2 * (1 - THETA) / 2)] = 0
    return Split("built", "test", x, y, torch.arange(n), 2)
