"""What every registered attack must do, whoever wrote it. A new entry of ATTACKS is tested without further work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from attacks import loop, pyautoattack_adapter
from attacks.oracle import Classifier, CountingClassifier
from attacks.registry import ATTACKS
from attacks.spatial import SPATIAL
from attacks.spec import AttackSpec, Ensemble, Recurrence, ThirdParty
from attacks.threat_model import ThreatModel

THREATS = {"Linf": (0.02, 0.4), "L2": (0.05, 2.0), "L1": (0.2, 6.0), "L0": (2, 10), SPATIAL: (1.0, 3.0)}
"""A small and a large epsilon of each family: by the small one few images break, and attacks run their full length."""
CASES = [
    pytest.param(spec, family, id=f"{name}-{family}") for name, spec in ATTACKS.items() for family in THREATS
    if family in spec.norms and not isinstance(spec.method, Ensemble)  # its members are here
]  # fmt: skip
EVERY_ATTACK = pytest.mark.parametrize(("spec", "family"), CASES, scope="module")  # all tests of an attack in a row
ON_LINEAR = [case for case in CASES if case.values[1] not in ("L0", SPATIAL)]
"""Others have no closed form: `test_spatial.py` compares with a finer grid, `test_sparse_rs.py` with all choices."""

# Attacks that need not succeed on a linear classifier whose margin is clearly below epsilon, and why.
WEAK = {
    ("foolbox-cw-l2", "Linf"): "it minimises the L2 norm: its nearest point has too large an Linf norm, and is cut",
    ("lbfgs", "Linf"): "it minimises the L2 norm, as foolbox-cw-l2 does",
    ("reference-square", "Linf"): "fifty of its queries are too few: its squares leave out the last row and column",
    ("reference-square", "L1"): "fifty of its queries are too few",
    ("reference-square", "L2"): "fifty of its queries are too few",
    ("square-500", "Linf"): "five hundred queries are too few",
    ("spsa-500", "L2"): "five hundred queries are too few",
    ("spsa-500", "Linf"): "five hundred queries are too few, of which version 2 spends ten on its own points",
    ("foolbox-boundary", "Linf"): "it minimises the L2 norm, and a thousand steps are too few",
    ("foolbox-boundary", "L2"): "a thousand steps are too few",
    ("foolbox-hopskipjump", "L2"): "nine steps are too few",
    ("random-points", "Linf"): "no direction is better than another",
    ("random-points", "L2"): "no direction is better than another",
}


class ShortAutoAttack(AutoAttack):  # type: ignore[misc]
    """The reference AutoAttack with 10 iterations for 100, and 50 queries for 5000; else its members are as they are.

    At its full length it takes half a minute on an image that none of its members breaks.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        for member in (self.apgd, self.apgd_targeted):
            member.n_iter = member.n_iter_orig = 10
        self.fab.n_iter, self.square.n_queries = 10, 50


@pytest.fixture(autouse=True)
def short_autoattack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyautoattack_adapter, "AutoAttack", ShortAutoAttack)


@dataclass(frozen=True)
class Shown:
    """Points that the judge was shown, and the positions of their images."""

    points: Tensor
    position: Tensor


def attack(
    spec: AttackSpec, classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, readings: Sequence[int]
) -> tuple[Tensor, Shown]:
    """(N,) bool still correct, and all that was proposed: of a recurrence, in every restart, at least the readings."""
    points, positions = [], []

    def judge(proposed: Tensor, position: Tensor) -> Tensor:
        points.append(proposed)
        positions.append(position)
        with torch.no_grad():
            classes = classifier(threat.images(proposed, x[position])).argmax(1)
            return torch.where(classes == y[position], -1, classes)

    if isinstance(spec.method, ThirdParty):
        counting = CountingClassifier(classifier)
        proposed = spec.method.propose(counting, x, y, threat, seed=1, **spec.propose_params)
        correct = judge(proposed, torch.arange(len(x))) < 0
    else:
        index = torch.arange(len(x)) + 100
        correct = loop.run(spec, classifier, judge, x, y, index, threat, readings=readings, seed=1, batch_size=len(x))[
            -1
        ].correct_any
    return correct, Shown(torch.cat(points), torch.cat(positions))


# --- On a small network -----------------------------------------------------------------------------------------------


CLASSES = 5


def network() -> nn.Module:
    """With a buffer, and with a module left in training mode, which an attack must leave there."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(64, CLASSES)
    ).eval()
    model[3].train()
    return model


def batch(model: nn.Module, n: int = 3) -> tuple[Tensor, Tensor]:
    """Correctly classified images, many of whose pixels are black or white."""
    generator = torch.Generator().manual_seed(1)
    x = (3 * torch.rand(n, 1, 6, 6, generator=generator) - 1).clamp(0, 1)
    with torch.no_grad():
        return x, model(x).argmax(1)


def attack_network(
    spec: AttackSpec, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel
) -> tuple[Tensor, Shown]:
    """Each iterate is read, of long attacks the first hundred; of restarts as many as there are targets, as always."""
    if spec.is_targeted:
        spec = replace(spec, restarts=min(spec.restarts, CLASSES - 1))
    return attack(spec, model, x, y, threat, range(1, min(spec.steps, 100) + 1))


def threat_of(family: str, size: str) -> ThreatModel:
    small, large = THREATS[family]
    degrees = 5 if size == "small" else 90
    return ThreatModel(f"{SPATIAL}-{degrees}deg" if family == SPATIAL else family, small if size == "small" else large)


def state(model: nn.Module, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], list[bool]]:
    """Copies of all that an attack leaves alone, and its modes."""
    tensors = {"x": x, "y": y, "generator": torch.random.get_rng_state(), **model.state_dict()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        tensors[f"gradient of {name}"] = parameter.grad
    modes = [module.training for module in model.modules()]
    learns = [parameter.requires_grad for parameter in model.parameters()]
    learns += [x.requires_grad, x.grad is not None, torch.is_grad_enabled()]
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, modes + learns


@dataclass(frozen=True)
class Run:
    """An attack on the small network, by a small epsilon: what it found, and `state` before and after it."""

    correct: Tensor
    shown: Shown
    before: tuple[dict[str, Tensor], list[bool]]
    after: tuple[dict[str, Tensor], list[bool]]


def run(spec: AttackSpec, family: str, *, global_seed: int) -> Run:
    # Third parties call backward(), so parameters must be frozen before, as those of every loaded model are.
    model = network().requires_grad_(isinstance(spec.method, Recurrence))
    x, y = batch(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    torch.manual_seed(global_seed)
    before = state(model, x, y)
    correct, shown = attack_network(spec, model, x, y, threat_of(family, "small"))
    return Run(correct, shown, before, state(model, x, y))


@cache
def first_run(name: str, family: str) -> Run:
    """Three tests look at it."""
    return run(ATTACKS[name], family, global_seed=2)


@EVERY_ATTACK
@pytest.mark.parametrize("epsilon", ["small", "large"])
def test_proposals_stay_in_the_set(spec: AttackSpec, family: str, epsilon: str) -> None:
    threat = threat_of(family, epsilon)
    model = network()
    x, y = batch(model)
    shown = first_run(spec.name, family).shown if epsilon == "small" else attack_network(spec, model, x, y, threat)[1]
    assert set(shown.position.tolist()) == {0, 1, 2}
    assert threat.contains(shown.points, x[shown.position]).all()


@EVERY_ATTACK
def test_inputs_parameters_gradients_and_modes_are_left_alone(spec: AttackSpec, family: str) -> None:
    (tensors, modes), (kept, kept_modes) = first_run(spec.name, family).after, first_run(spec.name, family).before
    assert tensors.keys() == kept.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, kept[name])] == []
    assert modes == kept_modes


@EVERY_ATTACK
def test_it_repeats_bit_for_bit_under_one_seed_whatever_the_global_generator(spec: AttackSpec, family: str) -> None:
    first, again = first_run(spec.name, family), run(spec, family, global_seed=3)
    assert torch.equal(first.correct, again.correct)
    assert torch.equal(first.shown.position, again.shown.position)
    assert torch.equal(first.shown.points, again.shown.points)


# --- On a linear classifier, where the distance to the nearest other class is known -----------------------------------


@dataclass(frozen=True)
class Linear:
    """Ten classes, logits W (x - 1/2)."""

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T

    def distance(self, x: Tensor, y: Tensor, norm: str) -> Tensor:
        """(N,) min over c != y of (z_y - z_c) / ||w_y - w_c||_dual, the exact distance to the nearest boundary."""
        logits, weight = self(x).double(), self.weight.double()
        dual = torch.cdist(weight, weight, p={"Linf": 1, "L2": 2, "L1": torch.inf}[norm])[y]
        ratio = (logits.gather(1, y[:, None]) - logits) / dual
        return ratio.scatter(1, y[:, None], torch.inf).amin(1)


def linear_problem(norm: str) -> tuple[Linear, Tensor, Tensor, Tensor, ThreatModel]:
    """A classifier, images in the middle of the pixel range, labels, distances, and an epsilon between the distances.

    Each class has six pixels of its own and little weight elsewhere, and in each image one class is close behind the
    label and all others are far. So the gradient of cross-entropy, too, points to the nearest class, and a single step
    must arrive. The six weigh so differently that the shortest way in one norm is too long in the other.
    """
    generator = torch.Generator().manual_seed(0)
    weight = 0.2 * torch.randn(10, 64, generator=generator)
    own = torch.zeros(10, 64)
    for label in range(10):
        own[label, 6 * label : 6 * label + 6] = torch.randn(6, generator=generator).sign()
    classifier = Linear(weight + own * torch.tensor([1, 1, 2, 5, 8, 13]).repeat(11)[:64])
    lead = torch.tensor([0.05, 0.055, 0.06, 0.12, 0.125, 0.13])
    y, runner_up = torch.arange(6), torch.arange(6) + 1
    shade = 0.02 * (torch.rand(6, 64, generator=generator) - 0.5) - 0.1 * own.sum(0)
    shade += (0.1 + lead)[:, None] * own[y] + 0.1 * own[runner_up]
    x = 0.5 + shade.view(6, 1, 8, 8)
    distance = classifier.distance(x, y, norm)
    return classifier, x, y, distance, ThreatModel(norm, 1.3 * float(distance[:3].max()))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_linear_problem_is_what_it_says(norm: str) -> None:
    classifier, x, y, distance, threat = linear_problem(norm)
    assert (classifier(x).argmax(1) == y).all()
    assert (1.299 * distance[:3] <= threat.epsilon).all()
    assert (0.95 * distance[3:] >= threat.epsilon).all()
    # The pixel range cuts no ball around these images, not even by a perturbation somewhat beyond it.
    assert (x - 1.2 * threat.epsilon).min() > 0
    assert (x + 1.2 * threat.epsilon).max() < 1
    # The closed form: by the steepest way towards each class none is reached before that distance, and one right after.
    for row, label in enumerate(y.tolist()):
        gap = classifier.weight - classifier.weight[label]
        steepest = gap.sign() if norm == "Linf" else gap / gap.norm(dim=1, keepdim=True).clamp_min(1e-9)
        if norm == "L1":
            steepest = gap.sign() * (gap.abs() == gap.abs().amax(1, keepdim=True))
        for factor, all_correct in ((0.999, True), (1.001, False)):
            reached = x[row] + factor * float(distance[row]) * steepest.view(10, 1, 8, 8)
            assert bool((classifier(reached).argmax(1) == label).all()) is all_correct


@pytest.mark.parametrize(("spec", "norm"), ON_LINEAR, scope="module")
def test_on_a_linear_classifier_it_succeeds_where_and_only_where_epsilon_exceeds_the_margin(
    spec: AttackSpec, norm: str
) -> None:
    classifier, x, y, distance, threat = linear_problem(norm)
    correct, _ = attack(spec, classifier, x, y, threat, [spec.steps])
    assert correct[threat.epsilon <= 0.95 * distance].all()
    if (spec.name, norm) not in WEAK:
        assert not correct[threat.epsilon >= 1.299 * distance].any()


def test_every_attack_named_as_weak_is_registered() -> None:
    assert {name for name, _ in WEAK} <= set(ATTACKS)
