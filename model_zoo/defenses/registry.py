"""Every defense that the trainer knows, in display order."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from attacks.errors import InputError
from attacks.names import lookup
from model_zoo.defenses import convex_bound, half_half, ibp, madry_at, natural, smoothing, trades


@dataclass(frozen=True)
class DefenseSpec:
    """A way to train.

    Args:
        name: as on the command line.
        batch_loss: `batch_loss(model, x, y, ctx, **params) -> scalar`.
        params: defaults of its keyword arguments.
        model_name: what a model trained by it is called, with the parameters filled in.
        is_robust: whether the best epoch is chosen by robust or by clean validation accuracy.
        paper: its source.
        summary: one line for `list defenses`.
        bound: the name of the bound that it trains, by which the best epoch is then chosen; None for none.

    Raises: InputError for a parameter that the loss does not take, or lacks.
    """

    name: str
    batch_loss: Callable[..., Tensor]
    model_name: str
    is_robust: bool
    paper: str
    summary: str
    params: Mapping[str, float] = field(default_factory=dict)
    bound: str | None = None

    def __post_init__(self) -> None:
        signature = inspect.signature(self.batch_loss).parameters.values()
        taken = {p.name for p in signature if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if taken != set(self.params):
            raise InputError(f"defense {self.name}: expected parameters {sorted(taken)}, got {sorted(self.params)}")


DEFENSES: Mapping[str, DefenseSpec] = {
    spec.name: spec
    for spec in (
        DefenseSpec("natural", natural.batch_loss, "natural", False, "-", "cross-entropy on clean images: the control"),
        DefenseSpec(
            "madry",
            madry_at.batch_loss,
            "madry",
            True,
            "Madry et al., arXiv:1706.06083",
            "cross-entropy on PGD examples",
        ),
        DefenseSpec(
            "half-half",
            half_half.batch_loss,
            "half-half",
            True,
            "Raghunathan et al., arXiv:2002.10716",
            "clean and adversarial cross-entropy in equal parts",
            {"weight": 0.5},
        ),
        DefenseSpec(
            "trades",
            trades.batch_loss,
            "trades-b{beta:g}",
            True,
            "Zhang et al., arXiv:1901.08573",
            "clean cross-entropy and the divergence from it, weighted by beta",
            {"beta": 6.0},
        ),
        DefenseSpec(
            "ibp",
            ibp.batch_loss,
            "ibp",
            True,
            "Gowal et al., arXiv:1810.12715",
            "clean cross-entropy and that of the worst logits within interval bounds",
            {"kappa": 0.5, "warm_up": 2_000 / 60_001, "ramp": 10_000 / 60_001},
            "intervals",
        ),
        DefenseSpec(
            "convex-bound",
            convex_bound.batch_loss,
            "convex-bound",
            True,
            "Wong and Kolter, arXiv:1711.00851",
            "cross-entropy of the worst logits within the convex relaxation of every ReLU",
            {"start": 0.01, "ramp": 1 / 3, "projections": 0.0},
            "convex",
        ),
        DefenseSpec(
            "smoothing",
            smoothing.batch_loss,
            "smoothing-{sigma:g}",
            True,
            "Cohen et al., arXiv:1902.02918",
            "cross-entropy under Gaussian noise, to be smoothed by it",
            {"sigma": 0.25},
        ),
    )
}


def defense_spec(name: str) -> DefenseSpec:
    """The defense of that name. Raises: InputError that names the nearest match."""
    return lookup(name, DEFENSES, "defense")
