"""Every defense that the trainer knows, in display order."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field

from torch import Tensor

from attacks.errors import InputError
from attacks.names import by_name, lookup
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
    masked,
    mixed,
    natural,
    smoothing,
    stability,
    trades,
    transfer,
)
from model_zoo.masked.mask_spec import MaskSpec
from model_zoo.masked.registry import MASKS

ROLES = ("labels-pool", "gives-features", "gives-examples")


@dataclass(frozen=True, kw_only=True)
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
        noise: the parameter that is the deviation of the noise its images are meant to have, under which the best epoch
            is then chosen; None for none.
        uses_epsilon: whether the loss depends on the threat model.
        mask: what the recipe's architecture is trained with; None for the architecture alone.

    Raises: InputError for a parameter that the loss does not take, or lacks.
    """

    name: str
    _: KW_ONLY
    batch_loss: Callable[..., Tensor]
    model_name: str
    is_robust: bool
    paper: str
    summary: str
    params: Mapping[str, float] = field(default_factory=dict)
    first: FirstStage | None = None
    bound: str | None = None
    noise: str | None = None
    uses_epsilon: bool = True
    mask: MaskSpec | None = None

    def __post_init__(self) -> None:
        signature = inspect.signature(self.batch_loss).parameters.values()
        taken = {p.name for p in signature if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if taken != set(self.params):
            raise InputError(f"defense {self.name}: expected parameters {sorted(taken)}, got {sorted(self.params)}")

    @property
    def all_params(self) -> dict[str, float]:
        """The defaults of the loss's parameters, and the setting of the mask."""
        return {**self.params, **({} if self.mask is None else {self.mask.setting: self.mask.settings[0]})}

    @property
    def rejects(self) -> bool:
        """Whether a trained model may reject an image."""
        return self.mask is not None and self.mask.rejects

    @property
    def uses_pool(self) -> bool:
        """Whether half of every batch has pseudo-labels."""
        return self.first is not None and self.first.role == "labels-pool"

    @property
    def takes_features(self) -> bool:
        """Whether the training starts from a source's features."""
        return self.first is not None and self.first.role == "gives-features"


TEACHER = FirstStage(defense="natural", role="labels-pool")
ROBUST_SOURCE = FirstStage(defense="madry", role="gives-features")
DISTILLED = FirstStage(defense="temperature", role="gives-examples")
FAT_PAPER = "Zhang et al., arXiv:2002.11242"
RST_PAPER = "Carmon et al., arXiv:1905.13736"
GAIRAT_PAPER = "Zhang et al., arXiv:2010.01736"
TRANSFER_PAPER = "Shafahi et al., arXiv:1905.08232"

DEFENSES: Mapping[str, DefenseSpec] = by_name(
    (
        DefenseSpec(
            "natural",
            batch_loss=natural.batch_loss,
            model_name="natural",
            is_robust=False,
            paper="-",
            summary="cross-entropy on clean images: the control",
            uses_epsilon=False,
        ),
        DefenseSpec(
            "madry",
            batch_loss=madry_at.batch_loss,
            model_name="madry",
            is_robust=True,
            paper="Madry et al., arXiv:1706.06083",
            summary="cross-entropy on PGD examples",
        ),
        DefenseSpec(
            "half-half",
            batch_loss=half_half.batch_loss,
            model_name="half-half",
            is_robust=True,
            paper="Raghunathan et al., arXiv:2002.10716",
            summary="clean and adversarial cross-entropy in equal parts",
            params={"weight": 0.5},
        ),
        DefenseSpec(
            "trades",
            batch_loss=trades.batch_loss,
            model_name="trades-b{beta:g}",
            is_robust=True,
            paper="Zhang et al., arXiv:1901.08573",
            summary="clean cross-entropy and the divergence from it, weighted by beta",
            params={"beta": 6.0},
        ),
        DefenseSpec(
            "mixed",
            batch_loss=mixed.batch_loss,
            model_name="mixed",
            is_robust=True,
            paper="Kurakin et al., arXiv:1611.01236",
            summary="half of a batch clean, half one-step adversarial (KGB17)",
            params={"weight": 0.3},
        ),
        DefenseSpec(
            "input-gradient",
            batch_loss=input_gradient.batch_loss,
            model_name="input-gradient",
            is_robust=False,
            paper="Ross and Doshi-Velez, arXiv:1711.09404",
            summary="the norm of the input gradient is penalised (RDV17)",
            params={"beta": 1.0},
            uses_epsilon=False,
        ),
        DefenseSpec(
            "stability",
            batch_loss=stability.batch_loss,
            model_name="stability",
            is_robust=True,
            paper="Zheng et al., arXiv:1604.04326",
            summary="the same prediction under Gaussian noise (ZSLG16)",
            params={"beta": 6.0, "sigma": 0.25},
            uses_epsilon=False,
        ),
        DefenseSpec(
            "mart",
            batch_loss=mart.batch_loss,
            model_name="mart",
            is_robust=True,
            paper="Wang et al., ICLR 2020",
            summary="misclassified images count more",
            params={"beta": 6.0},
        ),
        DefenseSpec(
            "fat",
            batch_loss=fat.batch_loss,
            model_name="fat",
            is_robust=True,
            paper=FAT_PAPER,
            summary="PGD stops tau mistakes after the first",
            params={"tau": 0.0},
        ),
        DefenseSpec(
            "fat-trades",
            batch_loss=fat.trades_loss,
            model_name="fat-trades-b{beta:g}",
            is_robust=True,
            paper=FAT_PAPER,
            summary="TRADES at early-stopped points",
            params={"beta": 6.0, "tau": 0.0},
        ),
        DefenseSpec(
            "fat-mart",
            batch_loss=fat.mart_loss,
            model_name="fat-mart",
            is_robust=True,
            paper=FAT_PAPER,
            summary="MART at early-stopped points",
            params={"beta": 6.0, "tau": 0.0},
        ),
        DefenseSpec(
            "cat",
            batch_loss=cat.batch_loss,
            model_name="cat",
            is_robust=True,
            paper="Cai et al., arXiv:1805.04807",
            summary="a curriculum of attacks with more and more steps",
            params={"ramp": 0.7},
        ),
        DefenseSpec(
            "dat",
            batch_loss=dat.batch_loss,
            model_name="dat",
            is_robust=True,
            paper="Wang et al., ICML 2019",
            summary="PGD stops where it is stationary, by a criterion that tightens",
            params={"c_max": 0.5, "ramp": 5 / 6},
        ),
        DefenseSpec(
            "gairat",
            batch_loss=gairat.batch_loss,
            model_name="gairat",
            is_robust=True,
            paper=GAIRAT_PAPER,
            summary="images near the decision boundary count more",
            params={"lam": -1.0},
        ),
        DefenseSpec(
            "gair-fat",
            batch_loss=gairat.fat_loss,
            model_name="gair-fat",
            is_robust=True,
            paper=GAIRAT_PAPER,
            summary="the same weights at early-stopped points",
            params={"lam": 0.0, "tau": 0.0},
        ),
        DefenseSpec(
            "free",
            batch_loss=free.batch_loss,
            model_name="free",
            is_robust=True,
            paper="Shafahi et al., arXiv:1904.12843",
            summary="weights and perturbation share one backward pass; every batch is replayed",
            params={"rel_step_size": 1.0},
        ),
        DefenseSpec(
            "fast",
            batch_loss=fast.batch_loss,
            model_name="fast",
            is_robust=True,
            paper="Wong et al., arXiv:2001.03994",
            summary="one step from a random start (FGSM-RS)",
            params={"rel_step_size": 1.25, "clip_start": 1},
        ),
        DefenseSpec(
            "self-training",
            batch_loss=natural.batch_loss,
            model_name="self-training",
            is_robust=False,
            paper=RST_PAPER,
            summary="natural training with unlabelled images that a teacher labels: the control",
            first=TEACHER,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "rst",
            batch_loss=trades.batch_loss,
            model_name="rst",
            is_robust=True,
            paper=RST_PAPER,
            summary="TRADES with unlabelled images that a teacher labels",
            params={"beta": 6.0},
            first=TEACHER,
        ),
        DefenseSpec(
            "rst-stability",
            batch_loss=stability.batch_loss,
            model_name="rst-stability",
            is_robust=True,
            paper=RST_PAPER,
            summary="stability training with unlabelled images that a teacher labels",
            params={"beta": 6.0, "sigma": 0.25},
            first=TEACHER,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "gair-rst",
            batch_loss=gairat.rst_loss,
            model_name="gair-rst",
            is_robust=True,
            paper=GAIRAT_PAPER,
            summary="RST with two divergences, weighted by the distance from the boundary",
            params={"beta": 6.0, "lam": 3.0},
            first=TEACHER,
        ),
        DefenseSpec(
            "fine-tuning",
            batch_loss=madry_at.batch_loss,
            model_name="fine-tuning",
            is_robust=True,
            paper="Hendrycks et al., arXiv:1901.09960",
            summary="adversarial training that starts from an adversarially trained source",
            first=ROBUST_SOURCE,
        ),
        DefenseSpec(
            "transfer-last-layer",
            batch_loss=transfer.head_loss,
            model_name="transfer-last-layer",
            is_robust=True,
            paper=TRANSFER_PAPER,
            summary="a new last layer, trained naturally on a robust source's features",
            first=ROBUST_SOURCE,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "transfer-mlp",
            batch_loss=transfer.head_loss,
            model_name="transfer-mlp",
            is_robust=True,
            paper=TRANSFER_PAPER,
            summary="a new head with a hidden layer, trained naturally on a robust source's features",
            first=ROBUST_SOURCE,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "transfer-lwf",
            batch_loss=transfer.without_forgetting_loss,
            model_name="transfer-lwf",
            is_robust=False,
            paper=TRANSFER_PAPER,
            summary="all layers, trained naturally without forgetting the source's features",
            params={"lam": 0.005, "head_first": 0.5},
            first=ROBUST_SOURCE,
            uses_epsilon=False,
        ),
        DefenseSpec(
            "cascade",
            batch_loss=cascade.batch_loss,
            model_name="cascade",
            is_robust=True,
            paper="Na et al., arXiv:1708.02582",
            summary="one-step examples, and iterative ones of a model defended before",
            params={"weight": 0.3, "similarity": 0.0001},
            first=FirstStage(defense="mixed", role="gives-examples"),
        ),
        DefenseSpec(
            "ibp",
            batch_loss=ibp.batch_loss,
            model_name="ibp",
            is_robust=True,
            paper="Gowal et al., arXiv:1810.12715",
            summary="clean cross-entropy and that of the worst logits within interval bounds",
            params={"kappa": 0.5, "clean_start": 2_000 / 60_001, "ramp": 10_000 / 60_001},
            bound="intervals",
        ),
        DefenseSpec(
            "convex-bound",
            batch_loss=convex_bound.batch_loss,
            model_name="convex-bound",
            is_robust=True,
            paper="Wong and Kolter, arXiv:1711.00851",
            summary="cross-entropy of the worst logits within the convex relaxation of every ReLU",
            params={"start": 0.01, "ramp": 1 / 3, "projections": 0.0},
            bound="convex",
        ),
        DefenseSpec(
            "smoothing",
            batch_loss=smoothing.batch_loss,
            model_name="smoothing-{sigma:g}",
            is_robust=True,
            paper="Cohen et al., arXiv:1902.02918",
            summary="cross-entropy under Gaussian noise, to be smoothed by it",
            params={"sigma": 0.25},
            noise="sigma",
            uses_epsilon=False,
        ),
        *(
            DefenseSpec(
                mask.name,
                batch_loss=masked.distillation_loss if mask.name == "distillation" else masked.batch_loss,
                model_name=f"{mask.name}-{{{mask.setting}:g}}",
                is_robust=False,
                paper=mask.paper,
                summary=mask.summary,
                first=DISTILLED if mask.name == "distillation" else None,
                uses_epsilon=False,
                mask=mask,
            )
            for mask in MASKS.values()
        ),
    ),
    "defense",
)


def defense_spec(name: str) -> DefenseSpec:
    """The defense of that name. Raises: InputError that names the nearest match."""
    return lookup(name, DEFENSES, "defense")
