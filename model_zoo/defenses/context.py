"""What a defense may ask for while it computes the loss of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.loop import run_steps
from attacks.oracle import Oracle
from attacks.registry import PGD
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class TrainingContext:
    """The inner attack of one batch.

    Args:
        threat: the model is trained against.
        draws: of the batch's images in this epoch.
        steps: of the inner attack.
        rel_step_size: its step as a fraction of epsilon.
        precision: of the inner attack.
        epoch: counted from 1, of `epochs` in all.
    """

    threat: ThreatModel
    draws: Draws
    steps: int
    rel_step_size: float
    precision: torch.dtype = torch.float32
    epoch: int = 1
    epochs: int = 1

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, *, loss: str, start: str) -> Tensor:
        """x_adv (N, C, H, W) by PGD on the model in eval mode, whatever mode it is in.

        Args:
            x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
            loss: "cross-entropy", or "kl-divergence" from the model's own clean prediction.
            start: of PGD: "none", "uniform" or "gaussian".
        """
        oracle = Oracle(model, self.threat, precision=self.precision)
        with eval_mode(model):
            label = F.log_softmax(oracle.logits(x), 1) if loss == "kl-divergence" else y
            return run_steps(
                PGD,
                oracle,
                x,
                label,
                self.draws,
                steps=self.steps,
                init_params={"start": start},
                step_params={"loss": loss, "rel_step_size": self.rel_step_size},
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
