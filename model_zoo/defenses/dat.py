"""Dynamic adversarial training: inner attacks that converge better and better."""

import torch.nn.functional as F
from torch import Tensor, nn

from attacks.threat_model import ThreatModel
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.search import Iterates, search


def batch_loss(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainingContext, *, c_max: float, ramp: float) -> Tensor:
    """Mean cross-entropy where PGD leaves each image once it is stationary enough for the epoch.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        c_max: the criterion at the start, which falls to 0 linearly; 0 is Madry adversarial training.
        ramp: the fraction of the epochs at whose end it is 0.

    Returns: a scalar.
    Source: Wang et al., "On the convergence and robustness of adversarial training", ICML 2019
        (YisenWang/dynamic_adv_training).
    Deviations: stationarity is measured within the pixel range, too, and around the image as in the paper (the
        authors' code: around the random start); images are not weighted by their loss, as that code does.
    """
    criterion = c_max * max(1 - (ctx.epoch - 1) / max(ramp * ctx.epochs, 1.0), 0.0)

    def stop(now: Iterates) -> Tensor:
        if now.step == 0:  # every image takes the first step
            return now.rows < 0
        return stationarity(ctx.threat, now.x, now.x_adv, now.gradient) < criterion

    found = search(ctx, model, x, y, loss="cross-entropy", start="uniform", stop=stop)
    return F.cross_entropy(model(found.x_adv), y)


def stationarity(threat: ThreatModel, x: Tensor, x_adv: Tensor, gradient: Tensor) -> Tensor:
    """The first-order stationary condition: max over the threat model of <z - x_adv, gradient>, at least 0.

    In an Linf ball away from the ends of the pixel range it is epsilon * ||gradient||_1 - <x_adv - x, gradient>.

    Args:
        x, x_adv, gradient: (N, C, H, W).

    Returns: (N,), 0 where no linear step could gain anything.
    """
    best = threat.project(x + threat.epsilon * threat.direction(gradient), x)
    return ((best - x_adv) * gradient).flatten(1).sum(1)
