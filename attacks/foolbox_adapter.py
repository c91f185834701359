"""foolbox's minimum-distance attacks behind our signature. Their results are proposals, judged like all others."""

import warnings
from contextlib import suppress

import foolbox
import torch
from torch import Tensor

from attacks.generators import seeded
from attacks.oracle import CountingClassifier
from attacks.query_budget import BudgetSpentError, QueryBudget
from attacks.threat_model import ThreatModel


def deepfool(
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,  # noqa: ARG001 (deterministic)
    steps: int,
    candidates: int,
    overshoot: float,
) -> Tensor:
    """DeepFool in the threat model's norm: walks over the nearest linearised class boundary.

    Args:
        x: (N, C, H, W) in [0, 1].
        y: (N,) class indices.

    Returns: the point found, or its projection where it is farther away than epsilon; inside the threat model.
    Source: Moosavi-Dezfooli et al., arXiv:1511.04599, Algorithm 2, as implemented by foolbox.
    """
    kind = foolbox.attacks.LinfDeepFoolAttack if threat.norm == "Linf" else foolbox.attacks.L2DeepFoolAttack
    attack = kind(steps=steps, candidates=candidates, overshoot=overshoot)
    return _nearest_found(attack, classifier, x, y, threat)


def carlini_wagner_l2(
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,  # noqa: ARG001 (deterministic)
    binary_search_steps: int,
    steps: int,
    stepsize: float,
    initial_const: float,
) -> Tensor:
    """C&W's L2 attack: Adam on distance plus margin, with a binary search over their balance.

    Args:
        x: (N, C, H, W) in [0, 1].
        y: (N,) class indices.

    Returns: the point found, or its projection where it is farther away than epsilon; inside the threat model.
        Under Linf it minimises another norm than the one it is judged by, and is a weak attack there. It stops by the
        loss of the whole batch, so the caller must not let the batch depend on anything but the case.
    Source: Carlini and Wagner, arXiv:1608.04644, Section VI-A, as implemented by foolbox.
    """
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=binary_search_steps, steps=steps, stepsize=stepsize, initial_const=initial_const
    )
    return _nearest_found(attack, classifier, x, y, threat)


def boundary(
    classifier: CountingClassifier, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, queries: int
) -> Tensor:
    """The boundary attack: a random walk along the decision boundary towards the image, by labels alone.

    Args:
        x: (N, C, H, W) in [0, 1].
        y: (N,) class indices.
        queries: labels asked for of each image, the search for its starting point included.

    Returns: the nearest misclassified point that was asked about inside the threat model, else x: what nobody asked
        about is no success by labels. It minimises the L2 norm, and is weak under Linf.
    Source: Brendel et al., arXiv:1712.04248, as implemented by foolbox.
    Deviations: it ends when the queries are spent, or all images of the batch are broken.
    """
    return _from_noise(foolbox.attacks.BoundaryAttack(steps=queries), classifier, x, y, threat, seed, queries)


def hop_skip_jump(
    classifier: CountingClassifier, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, queries: int
) -> Tensor:
    """HopSkipJump: the boundary's normal estimated from labels, a step along it, and back to the boundary.

    The t-th step asks 100 sqrt(t) times for the normal.

    Args, Returns, Deviations: as for `boundary`, in the threat model's norm.
    Source: Chen et al., arXiv:1904.02144, as implemented by foolbox.
    """
    norm = "linf" if threat.norm == "Linf" else "l2"
    attack = foolbox.attacks.HopSkipJumpAttack(steps=queries, constraint=norm)
    return _from_noise(attack, classifier, x, y, threat, seed, queries)


def _from_noise(
    attack: foolbox.attacks.base.MinimizationAttack,
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    seed: int,
    queries: int,
) -> Tensor:
    """The attack from a blend of each image with noise; an image of which no point found is inside the ball stays."""
    budget = QueryBudget(classifier, x, y, threat, queries=queries)
    model = foolbox.PyTorchModel(budget, bounds=(0, 1), device=x.device)
    blend = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=100, steps=50)
    with seeded(seed, "foolbox"), warnings.catch_warnings(), suppress(BudgetSpentError):
        warnings.filterwarnings("ignore", "LinearSearchBlendedUniformNoiseAttack failed")  # those images stay
        start = blend.run(model, x, foolbox.Misclassification(y))
        budget.rows = found = (model(start).argmax(-1) != y).nonzero().squeeze(1)
        if len(found):
            criterion = foolbox.Misclassification(y[found])
            attack.run(model, x[found], criterion, starting_points=start[found])
    inside = threat.contains(budget.x_adv, x).view(-1, 1, 1, 1)
    return torch.where(inside, threat.project(budget.x_adv, x), x)


def _nearest_found(
    attack: foolbox.attacks.base.MinimizationAttack,
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
) -> Tensor:
    model = foolbox.PyTorchModel(classifier, bounds=(0, 1), device=x.device)
    found: Tensor = attack.run(model, x, foolbox.Misclassification(y))
    return threat.project(found.detach(), x)
