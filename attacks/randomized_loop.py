"""The loop for randomised models: an attack takes all its steps and proposes points; none is judged before.

Where answers are random every query may break an image by chance, so the loop that learns of broken images from the
attack's own queries (`attacks/loop.py`) would call each image broken after enough of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.losses import logit_margin
from attacks.oracle import Classifier, Oracle, Query
from attacks.rejection import as_label
from attacks.several_points import first_of_each
from attacks.spec import AttackSpec, Recurrence
from attacks.threat_model import ThreatModel


@dataclass(frozen=True)
class Proposals:
    """What one start of an attack proposes.

    Args:
        best: (N, C, H, W) of the points inside the threat model that were asked about the one with the largest loss;
            where the attack asks for logits alone, the one with the least logit margin. Or (N, 3), as in `Query`.
        last: the last iterate.
        forwards, backwards: (N,) int64 passes spent on each image.
    """

    best: Tensor
    last: Tensor
    forwards: Tensor
    backwards: Tensor


def run_unjudged(
    attack: AttackSpec,
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    *,
    restart: int,
    seed: int,
    precision: torch.dtype = torch.float32,
    eot: int = 1,
    classes: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Proposals:
    """One start of an attack on one batch; no image leaves early.

    Args:
        attack: a recurrence.
        classifier: what the attack searches on.
        x: (N, C, H, W) in [0, 1]; y, index: (N,).
        restart: which start it is.
        seed: of the attack's draws, which belong to the images; the classifier's own are the caller's business.
        precision, eot: of the oracle, which averages losses, gradients and logits over so many passes.
        classes: as for `loop.run`.
        progress: called after every step with the number of images that took it.
    """
    best, value_of_best = threat.unchanged(x), torch.full((len(x),), -torch.inf, device=x.device)
    forwards, backwards = torch.zeros_like(y), torch.zeros_like(y)
    everyone, has_losses = torch.arange(len(x), device=x.device), False

    def observe(query: Query) -> None:
        nonlocal has_losses
        rows = everyone if query.rows is None else query.rows
        forwards.index_add_(0, rows, torch.full_like(rows, query.forwards))
        backwards.index_add_(0, rows, torch.full_like(rows, query.backwards))
        if query.loss is not None and not has_losses:  # what it climbs says more than the logits asked for before
            has_losses = True
            value_of_best.fill_(-torch.inf)
        if query.loss is None and has_losses:
            return
        value = -logit_margin(query.logits, y[rows]) if query.loss is None else query.loss
        better = ((value > value_of_best[rows]) & threat.contains(query.points, x[rows])).nonzero().squeeze(1)
        better = better[value[better].argsort(descending=True, stable=True)]
        better = better[first_of_each(rows[better])]  # of several points of an image the best
        best[rows[better]], value_of_best[rows[better]] = query.points[better], value[better]

    def reads(logits: Tensor, rows: Tensor | None) -> Tensor:
        return logits if classes is None else as_label(logits, y if rows is None else y[rows], classes)

    assert isinstance(attack.method, Recurrence)
    oracle = Oracle(classifier, threat, precision=precision, eot=eot, watch=observe, reads=reads, demands_finite=True)
    draws = Draws.start(seed, index, torch.full_like(index, restart))
    state, params = attack.method.init(x, y, threat, draws, **attack.init_params), attack.step_params
    for taken in range(attack.steps):
        oracle.steps_taken = {taken}
        state = attack.method.step(oracle, state, **params)
        progress(len(x))
    oracle.settle()
    return Proposals(best, state.x_adv, forwards, backwards)
