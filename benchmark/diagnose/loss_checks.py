"""Checks of the loss: is it smooth around the images, and had the attack done climbing it when it stopped."""

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.generators import seeded
from attacks.losses import logit_margin
from attacks.oracle import Classifier, Oracle, Query
from attacks.spec import AttackSpec, Recurrence
from attacks.threat_model import ThreatModel
from benchmark.diagnose.finding import Measured, share_p

DRAWS = 100
"""Random points around each image."""
LAST_STEPS, MOVES = 10, 0.05
"""Over so many steps at the end the rescaled loss may move by so much."""


def smooth(model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, index: Tensor, *, seed: int) -> Measured:
    """The loss changes little between an image and points around it: less, in the mean, than it is itself.

    The loss is the margin of the logits. The points are 100 draws from a cube as wide as epsilon (under L2 as wide as
    one with the ball's radius as half a diagonal): 8/255 where epsilon is 8/255.

    Source: Pintor et al., arXiv:2106.09947 (100 draws of width 8/255, mean relative change); the limit: this project.
    """
    half = threat.epsilon / 2 if threat.norm == "Linf" else threat.epsilon / x[0].numel() ** 0.5
    with torch.no_grad():
        here, total = _margin(model, x, y), torch.zeros(len(x), device=x.device)
        for draw in range(DRAWS):
            noise = Draws(seed, index, torch.full_like(index, draw), torch.zeros_like(index)).uniform(
                x.shape[1:], stream=8
            )
            total += (_margin(model, (x + half * (2 * noise - 1)).clamp(0, 1), y) - here).abs()
    change = total / DRAWS / here.abs().clamp_min(torch.finfo(torch.float32).tiny)
    count = int((change > 1).sum())
    words = f"on {count} of {len(x)} images it changes by more than itself (median change {float(change.median()):.2f})"
    return Measured("smooth-loss", 100 * count / len(x), 25.0, share_p(count, len(x), 25.0), words)


def _margin(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    with seeded("diagnosis"):
        return logit_margin(model(x).float(), y)


def converged(
    attack: AttackSpec, model: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, index: Tensor, *, seed: int
) -> Measured:
    """The attack had done climbing: its best loss, rescaled to [0, 1], moved by 0.05 at most over the last 10 steps.

    Of images that it does not break, since others it has no need to climb on.

    Source: Pintor et al., arXiv:2106.09947 (incomplete optimisation).
    """
    if not isinstance(attack.method, Recurrence) or attack.steps <= 2 * LAST_STEPS or attack.is_black_box:
        return Measured(
            "converged", None, None, None, f"the attack is none of more than {2 * LAST_STEPS} steps by gradients"
        )
    path: list[Tensor] = []
    broken = torch.zeros_like(y, dtype=torch.bool)

    def watch(query: Query) -> None:
        broken.logical_or_(query.logits.argmax(1) != y)
        if query.loss is not None:
            path.append(query.loss)

    oracle = Oracle(model, threat, watch=watch)
    state = attack.method.init(x, y, threat, Draws.start(seed, index), **attack.init_params)
    for _ in range(attack.steps):
        state = attack.method.step(oracle, state, **attack.step_params)
    if len(path) <= LAST_STEPS or broken.all():
        return Measured(
            "converged", None, None, None, "every image is broken" if broken.all() else "the attack has no loss"
        )
    best = torch.stack(path)[:, ~broken].cummax(0).values
    moved = (best[-1] - best[-1 - LAST_STEPS]) / (best[-1] - best[0]).clamp_min(torch.finfo(torch.float32).tiny)
    count, n = int((moved > MOVES).sum()), int((~broken).sum())
    words = f"on {count} of {n} standing images the loss still rose by over {MOVES} in {LAST_STEPS} steps"
    return Measured("converged", 100 * count / n, 50.0, share_p(count, n, 50.0), words)
