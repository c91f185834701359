"""Several attacks as one: each attacks the images that those before it did not break."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks.spec import AttackSpec, Ensemble
from attacks.tally import Reading

AttackSome = Callable[[AttackSpec, Tensor, Sequence[int], bool], list[Reading]]
"""An attack, rows of a batch (M,), step counts, and whether to track logit margins; to one reading a step count."""


def walk(ensemble: Ensemble, y: Tensor, attack_some: AttackSome, *, screens: bool) -> Reading:
    """Have images walk through an ensemble until they are broken.

    Args:
        y: (N,) labels of the images, all classified correctly when clean.
        screens: whether the ensemble's screening attacks decide which images its members are for.

    Returns: a reading with what each image cost in all attacks that it met.
    """
    wrong = torch.full_like(y, -1)
    forwards, backwards = (torch.zeros_like(y, dtype=torch.float64) for _ in range(2))

    def attack_rows(attack: AttackSpec, rows: Tensor, *, tracks_closest: bool = False) -> Tensor | None:
        """Attack some images, and return their least logit margins, by the attack's first check if it stops early."""
        checks = [] if attack.early_stopping is None else attack.early_stopping.checks[:1]
        readings = attack_some(attack, rows, [*checks, attack.steps], tracks_closest)
        wrong[rows] = readings[-1].adversarial_class
        forwards[rows] += readings[-1].forwards
        backwards[rows] += readings[-1].backwards
        return readings[0].closest

    wanted = torch.ones_like(y, dtype=torch.bool)
    if ensemble.screening and screens:
        by_gradient, by_queries = (torch.full_like(forwards, torch.inf, dtype=torch.float32) for _ in range(2))
        for attack in ensemble.screening:
            rows = (wrong < 0).nonzero().squeeze(1)
            if not len(rows):
                break
            before = backwards[rows].sum()
            closest = attack_rows(attack, rows, tracks_closest=True)
            assert closest is not None
            nearest = by_gradient if backwards[rows].sum() > before else by_queries
            nearest[rows] = torch.minimum(nearest[rows], closest)
        # where black-box search reached smaller logit margins than gradients did, the gradients say nothing
        wanted = (torch.minimum(by_gradient, by_queries) < ensemble.screening_margin) | (by_queries < by_gradient)
    for attack in ensemble.members:
        rows = ((wrong < 0) & wanted).nonzero().squeeze(1)
        if len(rows):
            attack_rows(attack, rows)
    return Reading(ensemble.members[-1].steps, wrong, None, forwards, backwards)
