"""What a defense may ask for while it computes the loss of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.folding import Pairs, folded, pairs_of
from attacks.loop import run_steps
from attacks.oracle import Oracle
from attacks.registry import PGD
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class TrainingContext:
    """The inner attack of one batch, and where in the training it stands.

    Args:
        threat: the model is trained against.
        draws: of the batch's images in this epoch.
        steps: of the inner attack.
        rel_step_size: its step as a fraction of epsilon.
        precision: of the inner attack.
        epoch, epochs: the epoch that the batch belongs to, counted from 1, and the last one.
        source: a model trained before, frozen and in eval mode; only where the defense has a first stage.
        carried: what a defense takes from batch to batch; empty at the start of every epoch.
    """

    threat: ThreatModel
    draws: Draws
    steps: int
    rel_step_size: float
    precision: torch.dtype = torch.float32
    epoch: int = 1
    epochs: int = 1
    source: nn.Module | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)

    @property
    def first_stage(self) -> nn.Module:
        """The model trained before, of a defense that has a first stage."""
        assert self.source is not None, "the defense's entry names no first stage"
        return self.source

    def craft(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        loss: str,
        start: str,
        clean: Tensor | None = None,
        steps: int | None = None,
        rel_step_size: float | None = None,
    ) -> Tensor:
        """x_adv (N, C, H, W) by PGD on the model in eval mode, whatever mode it is in.

        Args:
            x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
            loss: "cross-entropy", or "kl-divergence" from the model's own clean prediction.
            start: of PGD: "none", "uniform" or "gaussian".
            clean: (N, C, H, W) the images of that prediction, where x is not them.
            steps, rel_step_size: where the method fixes them; else those of the recipe.
        """
        oracle = Oracle(model, self.threat, precision=self.precision)
        with under_attack(model):
            label = F.log_softmax(oracle.logits(x if clean is None else clean), 1) if loss == "kl-divergence" else y
            return run_steps(
                PGD,
                oracle,
                x,
                label,
                self.draws,
                steps=self.steps if steps is None else steps,
                init_params={"start": start},
                step_params={
                    "loss": loss,
                    "rel_step_size": self.rel_step_size if rel_step_size is None else rel_step_size,
                },
            )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, and back in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def under_attack(model: nn.Module, *, keeps_mode: bool = False) -> Iterator[None]:
    """The model in eval mode, its parameters frozen, so that nobody computes gradients that nobody reads; and back.

    In eval mode batch norm is folded into the convolutions, which is the same function but for rounding.

    Args:
        keeps_mode: the model stays in the mode that it is in.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with nullcontext() if keeps_mode else eval_mode(model):
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            with nullcontext() if keeps_mode else folded(_pairs(model)):
                yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)


_PAIRS: WeakKeyDictionary[nn.Module, Pairs] = WeakKeyDictionary()


def _pairs(model: nn.Module) -> Pairs:
    """`pairs_of`, which traces the model, once for each model."""
    if model not in _PAIRS:
        _PAIRS[model] = pairs_of(model)
    return _PAIRS[model]
