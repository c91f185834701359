"""A chunk under one attack: ensembles walk, targets are what there is, misclassified images cost nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.judge import predict
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, EarlyStopping, Ensemble
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase
from model_zoo.model_spec import ModelSpec

CPU = Hardware(torch.device("cpu"), torch.float32, 16)
MODEL = ModelSpec(
    "toy", suites=(), dataset="toy", architecture="toy", defense="natural", checkpoint="", sha256="0" * 64
)


class Doubled(nn.Flatten):
    """Images to float64 pixels: what a sum's order changes is then lost in the logits' rounding to float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def problem(classes: int) -> tuple[nn.Module, Split]:
    """A small network that gets most of its images right."""
    generator = torch.Generator().manual_seed(classes)
    network = nn.Sequential(Doubled(), nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, classes)).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    network.requires_grad_(False)
    x = 0.2 + 0.6 * torch.rand(40, 1, 4, 4, generator=generator)
    y = network(x).argmax(1)
    y[:3] = (y[:3] + 1) % classes
    return network, Split("toy", "test", x, y, torch.arange(40), classes)


def run(attack: AttackSpec, classes: int = 10, epsilon: float = 0.04) -> Verdicts:
    network, split = problem(classes)
    case = EvalCase("toy", "toy", "", len(split), MODEL, MODEL, attack, ThreatModel("Linf", epsilon), seed=0)
    prediction = predict(network, split.x, batch_size=16)
    return evaluate_chunk([case], network, network, network, split, prediction, CPU)[0]


def short(name: str) -> AttackSpec:
    """A member of AutoAttack at a tenth of its length."""
    return ATTACKS[name].with_settings(steps=10)


def test_an_ensemble_is_the_fold_of_its_members_and_costs_less() -> None:
    members = [short(name) for name in ("apgd-ce", "apgd-t", "square")]
    together = run(replace(ATTACKS["autoattack"], method=Ensemble(members)))
    alone = [run(member) for member in members]
    fold = np.logical_and.reduce([verdicts.robust_any for verdicts in alone])
    assert 0 < fold.sum() < fold.size - 3
    np.testing.assert_array_equal(together.robust_any, fold)
    assert together.robust_last is None
    standing = alone[0].robust_any
    np.testing.assert_array_equal(together.forwards[~standing], alone[0].forwards[~standing])
    survivors = together.robust_any
    np.testing.assert_array_equal(together.forwards[survivors], np.sum([v.forwards for v in alone], 0)[survivors])


def test_targeted_attacks_have_no_more_restarts_than_wrong_classes() -> None:
    verdicts = run(short("apgd-t"), classes=3, epsilon=0.001)
    robust = verdicts.robust_any
    assert robust.any()
    np.testing.assert_array_equal(verdicts.backwards[robust], 2 * 10)


def test_two_classes_are_enough_for_every_member_of_our_autoattack() -> None:
    for name in ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"):
        verdicts = run(short(name), classes=2, epsilon=0.3)
        assert not verdicts.robust_any.any(), name


def test_images_that_are_wrong_when_clean_are_not_robust_and_cost_nothing() -> None:
    verdicts = run(ATTACKS["pgd-20"])
    assert not verdicts.correct[:3].any()
    assert not verdicts.robust_any[:3].any()
    assert verdicts.robust_last is not None
    assert not verdicts.robust_last[:3].any()
    assert verdicts.forwards[:3].sum() == verdicts.backwards[:3].sum() == 0
    np.testing.assert_array_equal(verdicts.backwards[3:], 20)


def test_images_that_no_screening_attack_brought_near_are_left_standing() -> None:
    screening, members = [short("apgd-ce")], [short("apgd-t"), short("square")]
    everyone = run(replace(ATTACKS["autoattack"], method=Ensemble([*screening, *members])))

    def screened(margin: float) -> Verdicts:
        return run(
            replace(ATTACKS["autoattack"], method=Ensemble(members, screening=screening, screening_margin=margin))
        )

    np.testing.assert_array_equal(screened(np.inf).robust_any, everyone.robust_any)
    np.testing.assert_array_equal(screened(np.inf).forwards, everyone.forwards)
    np.testing.assert_array_equal(screened(0.0).robust_any, run(screening[0]).robust_any)
    some = screened(0.5)
    assert everyone.forwards.sum() > some.forwards.sum() > screened(0.0).forwards.sum()
    assert not (everyone.robust_any & ~some.robust_any).any()


class Quantised(nn.Module):
    """A model whose gradients are zero, though its logits follow the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x * 64).round() / 64)
        return logits


def test_where_gradients_say_nothing_every_image_is_attacked() -> None:
    screening, members = [short("apgd-ce"), short("square").with_settings(steps=1)], [short("square")]
    network, split = problem(10)
    masked = Quantised(network)
    prediction = predict(masked, split.x, batch_size=16)

    def robust(ensemble: Ensemble) -> NDArray[np.bool_]:
        attack = replace(ATTACKS["autoattack"], method=ensemble)
        case = EvalCase("toy", "toy", "", len(split), MODEL, MODEL, attack, ThreatModel("Linf", 0.06), seed=0)
        return evaluate_chunk([case], masked, masked, masked, split, prediction, CPU)[0].robust_any

    far_away = robust(Ensemble(members, screening=screening, screening_margin=0.0))
    np.testing.assert_array_equal(far_away, robust(Ensemble([*screening, *members])))
    assert far_away.sum() < robust(Ensemble(screening)).sum()


def test_a_screening_attack_stops_at_its_first_check_and_goes_on_while_the_margin_falls() -> None:
    """That random search came nearer than gradients says something of these only if it was as short."""
    square = short("square")
    near = Ensemble(
        [short("fab-t")],
        screening=[short("apgd-ce"), replace(square, early_stopping=EarlyStopping((1, 2), 0.0))],
        screening_margin=0.0,
    )
    by_first_check = Ensemble(
        near.members, screening=[short("apgd-ce"), square.with_settings(steps=1)], screening_margin=0.0
    )
    long, brief = (run(replace(ATTACKS["autoattack"], method=ensemble)) for ensemble in (near, by_first_check))
    standing = long.robust_any & brief.robust_any
    np.testing.assert_array_equal(long.backwards[standing], brief.backwards[standing])
    assert (long.forwards > brief.forwards)[standing].all()


def test_autoattack_fast_does_not_rely_on_gradients_alone() -> None:
    """On a model without gradients, and by transfer, where nobody knows what the source's say of the target.

    So its attacks that ask for gradients may be short: it is what the searches by logits find that must not be lost.
    """
    network, split = problem(10)
    masked = Quantised(network)
    prediction = predict(masked, split.x, batch_size=16)
    other = replace(MODEL, sha256="1" * 64)
    fast = ATTACKS["autoattack-fast"].method
    assert isinstance(fast, Ensemble)
    members, screening = (
        [one.with_settings(steps=2) if one.needs_gradients else one for one in part]
        for part in (fast.members, fast.screening)
    )
    brief = replace(ATTACKS["autoattack-fast"], method=replace(fast, members=members, screening=screening))

    def robust(attack: AttackSpec, source: ModelSpec) -> NDArray[np.bool_]:
        case = EvalCase("toy", "toy", "", len(split), MODEL, source, attack, ThreatModel("Linf", 0.06), seed=0)
        return evaluate_chunk([case], masked, masked, masked, split, prediction, CPU)[0].robust_any

    for source in (MODEL, other):
        by_search = robust(ATTACKS["square"].with_settings(steps=16), source)
        assert by_search.sum() < robust(ATTACKS["apgd-ce"], source).sum() - 3
        assert not (robust(brief, source) & ~by_search).any()


def test_what_a_rounded_search_brought_near_is_searched_again_in_float32() -> None:
    network, split = problem(10)
    rounding = replace(CPU, precision=torch.bfloat16)
    square = short("square").with_settings(steps=4)
    spec = [square.with_settings(steps=steps) for steps in (1, 4)]
    grid = [EvalCase("toy", "toy", "", 40, MODEL, MODEL, one, ThreatModel("Linf", 0.04), seed=0) for one in spec]
    prediction = predict(network, split.x, batch_size=16)
    exact = evaluate_chunk(grid, network, network, network, split, prediction, CPU)
    # A copy that answers with next to nothing breaks no image, and brings all of them near.
    blunt = nn.Sequential(network, Shrunk()).eval()
    both = evaluate_chunk(grid, network, network, blunt, split, prediction, rounding)
    for once, twice in zip(exact, both, strict=True):
        np.testing.assert_array_equal(once.robust_any, twice.robust_any)
    assert (both[1].forwards > exact[1].forwards)[exact[1].robust_any].all()


class Shrunk(nn.Module):
    """Logits whose true class leads by next to nothing of their spread."""

    def forward(self, logits: Tensor) -> Tensor:
        order = logits.argsort(1, descending=True)
        return torch.zeros_like(logits).scatter(
            1, order[:, :2], torch.tensor([[1.01, 1.0]], dtype=logits.dtype).expand(len(logits), 2)
        )


def test_screening_must_tell_how_near_they_came() -> None:
    with pytest.raises(InputError, match="screening attacks must be recurrences"):
        Ensemble([short("square")], screening=[ATTACKS["autoattack-reference"]])
