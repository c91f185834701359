"""Every defense that the trainer knows, in display order."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from attacks.errors import InputError
from attacks.names import lookup
from model_zoo.defenses import (
    cascade,
    cat,
    convex_bound,
    dat,
    fast,
    fat,
    free,
    gairat,
    half_half,
    ibp,
    input_gradient,
    madry_at,
    mart,
    mixed,
    natural,
    smoothing,
    stability,
    trades,
    transfer,
)

ROLES = ("labels-pool", "gives-features", "gives-examples")


@dataclass(frozen=True)
class FirstStage:
    """A model that is trained before, unless the user names the checkpoint of one; the loss has it as `ctx.source`.

    Args:
        defense: that trains it.
        role: what it is for. "labels-pool": it is trained on what the recipe does not withhold, and labels what it
            does, or the user's own unlabelled images; half of every batch comes from these. "gives-features": it is
            trained on what the recipe withholds, and all its weights but the head's are where the training starts.
            "gives-examples": it is trained on the same images.

    Raises: InputError for another role.
    """

    defense: str
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"the role of a first stage is one of {', '.join(ROLES)}, got {self.role!r}")


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
        first: the model that is trained before; None for most.
        bound: the name of the bound that it trains, by which the best epoch is then chosen; None for none.
        uses_epsilon: whether the loss depends on the threat model.

    Raises: InputError for a parameter that the loss does not take, or lacks.
    """

    name: str
    batch_loss: Callable[..., Tensor]
    model_name: str
    is_robust: bool
    paper: str
    summary: str
    params: Mapping[str, float] = field(default_factory=dict)
    first: FirstStage | None = None
    bound: str | None = None
    uses_epsilon: bool = True

    def __post_init__(self) -> None:
        signature = inspect.signature(self.batch_loss).parameters.values()
        taken = {p.name for p in signature if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if taken != set(self.params):
            raise InputError(f"defense {self.name}: expected parameters {sorted(taken)}, got {sorted(self.params)}")

    @property
    def uses_pool(self) -> bool:
        """Whether half of every batch has pseudo-labels."""
        return self.first is not None and self.first.role == "labels-pool"

    @property
    def takes_features(self) -> bool:
        """Whether the training starts from a source's features."""
        return self.first is not None and self.first.role == "gives-features"


TEACHER = FirstStage("natural", "labels-pool")
ROBUST_SOURCE = FirstStage("madry", "gives-features")
FAT_PAPER = "Zhang et al., arXiv:2002.11242"
RST_PAPER = "Carmon et al., arXiv:1905.13736"
GAIRAT_PAPER = "Zhang et al., arXiv:2010.01736"
TRANSFER_PAPER = "Shafahi et al., arXiv:1905.08232"

DEFENSES: Mapping[str, DefenseSpec] = {
    spec.name: spec
    for spec in (
        DefenseSpec(
            "natural",
            natural.batch_loss,
            "natural",
            False,
            "-",
            "cross-entropy on clean images: the control",
            uses_epsilon=False,
        ),
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
            "mixed",
            mixed.batch_loss,
            "mixed",
            True,
            "Kurakin et al., arXiv:1611.01236",
            "half of a batch clean, half one-step adversarial (KGB17)",
            {"weight": 0.3},
        ),
        DefenseSpec(
            "input-gradient",
            input_gradient.batch_loss,
            "input-gradient",
            False,
            "Ross and Doshi-Velez, arXiv:1711.09404",
            "the norm of the input gradient is penalised (RDV17)",
            {"beta": 1.0},
            uses_epsilon=False,
        ),
        DefenseSpec(
            "stability",
            stability.batch_loss,
            "stability",
            True,
            "Zheng et al., arXiv:1604.04326",
            "the same prediction under Gaussian noise (ZSLG16)",
            {"beta": 6.0, "sigma": 0.25},
            uses_epsilon=False,
        ),
        DefenseSpec(
            "mart",
            mart.batch_loss,
            "mart",
            True,
            "Wang et al., ICLR 2020",
            "misclassified images count more",
            {"beta": 6.0},
        ),
        DefenseSpec(
            "fat", fat.batch_loss, "fat", True, FAT_PAPER, "PGD stops tau mistakes after the first", {"tau": 0.0}
        ),
        DefenseSpec(
            "fat-trades",
            fat.trades_loss,
            "fat-trades-b{beta:g}",
            True,
            FAT_PAPER,
            "TRADES at early-stopped points",
            {"beta": 6.0, "tau": 0.0},
        ),
        DefenseSpec(
            "fat-mart",
            fat.mart_loss,
            "fat-mart",
            True,
            FAT_PAPER,
            "MART at early-stopped points",
            {"beta": 6.0, "tau": 0.0},
        ),
        DefenseSpec(
            "cat",
            cat.batch_loss,
            "cat",
            True,
            "Cai et al., arXiv:1805.04807",
            "a curriculum of attacks with more and more steps",
            {"ramp": 0.7},
        ),
        DefenseSpec(
            "dat",
            dat.batch_loss,
            "dat",
            True,
            "Wang et al., ICML 2019",
            "PGD stops where it is stationary, by a criterion that tightens",
            {"c_max": 0.5, "ramp": 5 / 6},
        ),
        DefenseSpec(
            "gairat",
            gairat.batch_loss,
            "gairat",
            True,
            GAIRAT_PAPER,
            "images near the decision boundary count more",
            {"lam": -1.0},
        ),
        DefenseSpec(
            "gair-fat",
            gairat.fat_loss,
            "gair-fat",
            True,
            GAIRAT_PAPER,
            "the same weights at early-stopped points",
            {"lam": 0.0, "tau": 0.0},
        ),
        DefenseSpec(
            "free",
            free.batch_loss,
            "free",
            True,
            "Shafahi et al., arXiv:1904.12843",
            "weights and perturbation share one backward pass; every batch is replayed",
            {"rel_step_size": 1.0},
        ),
        DefenseSpec(
            "fast",
            fast.batch_loss,
            "fast",
            True,
            "Wong et al., arXiv:2001.03994",
            "one step from a random start (FGSM-RS)",
            {"rel_step_size": 1.25, "clip_start": 1},
        ),
        DefenseSpec(
            "self-training",
            natural.batch_loss,
            "self-training",
            False,
            RST_PAPER,
            "natural training with unlabelled images that a teacher labels: the control",
            first=TEACHER,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "rst",
            trades.batch_loss,
            "rst",
            True,
            RST_PAPER,
            "TRADES with unlabelled images that a teacher labels",
            {"beta": 6.0},
            TEACHER,
        ),
        DefenseSpec(
            "rst-stability",
            stability.batch_loss,
            "rst-stability",
            True,
            RST_PAPER,
            "stability training with unlabelled images that a teacher labels",
            {"beta": 6.0, "sigma": 0.25},
            TEACHER,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "gair-rst",
            gairat.rst_loss,
            "gair-rst",
            True,
            GAIRAT_PAPER,
            "RST with two divergences, weighted by the distance from the boundary",
            {"beta": 6.0, "lam": 3.0},
            TEACHER,
        ),
        DefenseSpec(
            "fine-tuning",
            madry_at.batch_loss,
            "fine-tuning",
            True,
            "Hendrycks et al., arXiv:1901.09960",
            "adversarial training that starts from an adversarially trained source",
            first=ROBUST_SOURCE,
        ),
        DefenseSpec(
            "transfer-last-layer",
            transfer.head_loss,
            "transfer-last-layer",
            True,
            TRANSFER_PAPER,
            "a new last layer, trained naturally on a robust source's features",
            first=ROBUST_SOURCE,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "transfer-mlp",
            transfer.head_loss,
            "transfer-mlp",
            True,
            TRANSFER_PAPER,
            "a new head with a hidden layer, trained naturally on a robust source's features",
            first=ROBUST_SOURCE,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "transfer-lwf",
            transfer.without_forgetting_loss,
            "transfer-lwf",
            False,
            TRANSFER_PAPER,
            "all layers, trained naturally without forgetting the source's features",
            {"lam": 0.005, "head_first": 0.5},
            ROBUST_SOURCE,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "cascade",
            cascade.batch_loss,
            "cascade",
            True,
            "Na et al., arXiv:1708.02582",
            "one-step examples, and iterative ones of a model defended before",
            {"weight": 0.3, "similarity": 0.0001},
            FirstStage("mixed", "gives-examples"),
        ),
        DefenseSpec(
            "ibp",
            ibp.batch_loss,
            "ibp",
            True,
            "Gowal et al., arXiv:1810.12715",
            "clean cross-entropy and that of the worst logits within interval bounds",
            {"kappa": 0.5, "clean_start": 2_000 / 60_001, "ramp": 10_000 / 60_001},
            bound="intervals",
        ),
        DefenseSpec(
            "convex-bound",
            convex_bound.batch_loss,
            "convex-bound",
            True,
            "Wong and Kolter, arXiv:1711.00851",
            "cross-entropy of the worst logits within the convex relaxation of every ReLU",
            {"start": 0.01, "ramp": 1 / 3, "projections": 0.0},
            bound="convex",
        ),
        DefenseSpec(
            "smoothing",
            smoothing.batch_loss,
            "smoothing-{sigma:g}",
            True,
            "Cohen et al., arXiv:1902.02918",
            "cross-entropy under Gaussian noise, to be smoothed by it",
            {"sigma": 0.25},
            uses_epsilon=False,
        ),
    )
}


def defense_spec(name: str) -> DefenseSpec:
    """The defense of that name. Raises: InputError that names the nearest match."""
    return lookup(name, DEFENSES, "defense")
