"""The loop against closed forms and against a naive reference that attacks one image after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks import loop, pgd
from attacks.draws import Draws
from attacks.errors import InputError
from attacks.oracle import Classifier, Oracle
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, EarlyStopping, Recurrence
from attacks.threat_model import ThreatModel

SEED = 3


# --- A classifier and an attack whose arithmetic is exact -------------------------------------------------------------


class ExactNetwork:
    """Two layers with small-integer weights: in float32 no sum of its is rounded, so no order of summation matters.

    At pixels that are multiples of 1/32 a hidden unit is a multiple of 1/32 up to 64, and a logit one up to 1024. The
    biases are distinct multiples of 1/512 below 1/32: they break every tie between classes, so that neither argmax nor
    the gradient of a maximum has to choose, and the logits still take no more than 20 of float32's 24 bits.
    Gradients are sums of products of small integers. Only the batch's *content* can therefore change a verdict.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randint(-1, 2, (64, 16), generator=generator).float()
        self.second = torch.randint(-1, 2, (16, 10), generator=generator).float()
        self.bias = torch.arange(10) / 512
        self.images = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return (x.flatten(1) @ self.first).relu() @ self.second + self.bias


def exact_images(n: int = 100) -> Tensor:
    """(n, 1, 8, 8), multiples of 1/16 in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(17, (n, 1, 8, 8), generator=generator) / 16


EXACT_THREAT = ThreatModel("Linf", 1 / 8)


def coarse_init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> pgd.State:
    """A random start on multiples of 1/32; each pixel draws from -1/8, -3/32, ... 3/32."""
    delta = (draws.uniform(x.shape[1:]) * 8 - 4).floor() / 32
    return pgd.State(x, y, threat.project(x + delta, x), draws.step)


# The margin's gradient is a difference of integers, where that of cross-entropy has exponentials. A step is 1/32.
EXACT_PGD = AttackSpec(
    "exact-pgd",
    algorithm="exact-pgd",
    method=Recurrence(coarse_init, pgd.step),
    params={"loss": "margin", "rel_step_size": 0.25},
)


# --- An attack and a classifier whose every verdict can be told beforehand --------------------------------------------


@dataclass(frozen=True)
class Walk:
    """Pixels (N, 1, 1, 1), which climb by 1/16 a step."""

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor


def walk_init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Walk:  # noqa: ARG001
    return Walk(x, y, x, draws.step)


def walk_step(oracle: Oracle, state: Walk) -> Walk:
    oracle.loss_and_gradient(state.x_adv, state.y, "margin")
    return replace(state, x_adv=state.x_adv + 1 / 16, steps=state.steps + 1)


WALK = AttackSpec("walk", algorithm="walk", method=Recurrence(walk_init, walk_step))
WALK_THREAT = ThreatModel("Linf", 0.5)
ZONE = range(8, 10)


def zone(x: Tensor) -> Tensor:
    """Class 1 in [8/16, 10/16), else class 0."""
    place = x.flatten(1)[:, :1] * 16
    inside = ((place >= ZONE.start) & (place < ZONE.stop)).float()
    return torch.cat([1 - inside, inside], 1) + 0 * place


def walkers(starts: Sequence[int]) -> Tensor:
    return torch.tensor(starts).view(-1, 1, 1, 1) / 16


# --- Running the loop, and the reference ------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttackOutcome:
    """One reading as lists, which compare as a whole."""

    any: list[bool]
    last: list[bool] | None
    forwards: list[int]
    backwards: list[int]
    classes: list[int]


def attack(
    spec: AttackSpec,
    classifier: Classifier,
    x: Tensor,
    threat: ThreatModel,
    readings: Sequence[int],
    *,
    index: Tensor | None = None,
    batch_size: int = 1000,
    judge: loop.Judge | None = None,
    **options: Any,
) -> list[AttackOutcome]:
    y = classifier(x).argmax(1)

    def wrong(points: Tensor, position: Tensor) -> Tensor:
        classes = classifier(points).argmax(1)
        return torch.where(classes == y[position], -1, classes)

    if index is None:
        index = torch.arange(len(x))
    results = loop.run(
        spec, classifier, judge or wrong, x, y, index, threat,
        readings=readings, seed=SEED, batch_size=batch_size, **options,
    )  # fmt: skip
    assert [result.steps for result in results] == list(readings)
    return [
        AttackOutcome(
            result.correct_any.tolist(),
            None if result.correct_last is None else result.correct_last.tolist(),
            result.forwards.tolist(),
            result.backwards.tolist(),
            result.adversarial_class.tolist(),
        )
        for result in results
    ]


def naive(spec: AttackSpec, classifier: Classifier, x: Tensor, threat: ThreatModel, steps: int) -> AttackOutcome:
    """One reading by the definitions of `Reading`: image by image, restart by restart, each iterate judged in turn."""
    assert isinstance(spec.method, Recurrence)
    oracle = Oracle(classifier, threat)
    rows = []
    for place, image in enumerate(x.split(1)):
        label = classifier(image).argmax(1)
        broken_any = broken_last = False
        forwards = backwards = 0
        wrong = -1
        for restart in range(spec.restarts):
            if broken_any and (broken_last or not spec.reads_last):
                break
            draws = Draws.start(SEED, torch.tensor([place]), torch.tensor([restart]))
            state = spec.method.init(image, label, threat, draws, **spec.init_params)
            for taken in range(1, steps + 1):
                before, state = state, spec.method.step(oracle, state, **spec.step_params)
                forwards, backwards = forwards + 1, backwards + 1
                if not broken_any and bool(classifier(before.x_adv).argmax(1) != label):
                    broken_any, forwards = True, forwards + 1
                    wrong = int(classifier(before.x_adv).argmax(1))
                if broken_any and (broken_last or not spec.reads_last):
                    break
                if taken == steps:
                    forwards += 1
                    if bool(classifier(state.x_adv).argmax(1) != label):
                        wrong = wrong if broken_any else int(classifier(state.x_adv).argmax(1))
                        broken_any = broken_last = True
        rows.append((not broken_any, not broken_last, forwards, backwards, wrong))
    any_, last, forward, backward, classes = (list(column) for column in zip(*rows, strict=True))
    return AttackOutcome(any_, last if spec.reads_last else None, forward, backward, classes)


# --- Verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("reads_last", [True, False])
def test_every_batch_size_gives_the_verdicts_and_costs_of_the_naive_reference(restarts: int, reads_last: bool) -> None:
    spec = replace(EXACT_PGD, restarts=restarts, reads_last=reads_last)
    x, network = exact_images(), ExactNetwork()
    expected = naive(spec, network, x, EXACT_THREAT, 6)
    assert 10 < sum(expected.any) < 90
    assert len(set(expected.forwards)) > 1
    for batch_size in (1, 7, 64, len(x), 10 * len(x)):
        assert attack(spec, network, x, EXACT_THREAT, [6], batch_size=batch_size) == [expected]


@pytest.mark.parametrize("readings", [[3, 7, 25], [25]])
def test_suspects_that_wait_for_those_of_later_steps_change_no_verdict_and_no_cost(
    readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(EXACT_PGD, restarts=3, reads_last=False)
    x, network, threat = exact_images(), ExactNetwork(), ThreatModel("Linf", 3 / 32)
    at_once = attack(spec, network, x, threat, readings)
    assert len(set(at_once[-1].forwards)) > 5
    passes = network.images
    monkeypatch.setattr(loop, "may_wait", lambda *_: True)
    for batch_size in (7, 1000):
        assert attack(spec, network, x, threat, readings, batch_size=batch_size) == at_once
    assert network.images > 3 * passes, "images that broke go on until it is found out"


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("reads_last", [True, False])
def test_several_step_counts_from_one_trajectory_equal_each_alone(restarts: int, reads_last: bool) -> None:
    spec = replace(EXACT_PGD, restarts=restarts, reads_last=reads_last)
    x, network, readings = exact_images(), ExactNetwork(), [1, 2, 3, 6, 10]
    together = attack(spec, network, x, EXACT_THREAT, readings, batch_size=16)
    assert len({tuple(outcome.any) for outcome in together}) > 3
    for steps, outcome in zip(readings, together, strict=True):
        assert attack(spec, network, x, EXACT_THREAT, [steps]) == [outcome]


@pytest.mark.parametrize("reads_last", [True, False])
def test_pgd_20_40_and_100_from_one_trajectory_equal_each_alone(reads_last: bool) -> None:
    x, network = exact_images(40), ExactNetwork()
    names = ["pgd-20", "pgd-40", "pgd-100"]
    specs = [replace(ATTACKS[name].with_settings(start="none", loss="margin", rel_step_size=0.25)) for name in names]
    specs = [replace(spec, reads_last=reads_last) for spec in specs]
    together = attack(specs[0], network, x, EXACT_THREAT, [20, 40, 100], batch_size=16)
    for spec, outcome in zip(specs, together, strict=True):
        assert attack(spec, network, x, EXACT_THREAT, [spec.steps], batch_size=16) == [outcome]
        assert 0 < sum(outcome.any) < len(x)


@pytest.mark.parametrize("batch_size", [5, 1000])
def test_a_subset_of_the_images_gets_the_verdicts_that_it_gets_among_all(batch_size: int) -> None:
    spec = replace(EXACT_PGD, restarts=3, reads_last=False)
    x, network = exact_images(), ExactNetwork()
    (whole,) = attack(spec, network, x, EXACT_THREAT, [4])
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))[:30]
    (some,) = attack(spec, network, x[rows], EXACT_THREAT, [4], index=rows, batch_size=batch_size)
    assert some.any == [whole.any[row] for row in rows]
    assert some.forwards == [whole.forwards[row] for row in rows]
    # The draws are what the index decides: under other indices the same images do not cost the same.
    (others,) = attack(spec, network, x[rows], EXACT_THREAT, [4], index=rows + 1000, batch_size=batch_size)
    assert others != some


STARTS = [0, 2, 3, 4, 5, 6, 7, 10, 11]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("reads_last", [True, False])
@pytest.mark.parametrize("readings", [[5], [2], [2, 5], [1, 2, 3, 4, 5]])
def test_a_walk_through_a_zone_is_read_as_the_closed_form_says(
    readings: list[int], reads_last: bool, batch_size: int
) -> None:
    spec = replace(WALK, reads_last=reads_last)
    outcomes = attack(spec, zone, walkers(STARTS), WALK_THREAT, readings, batch_size=batch_size)
    for steps, outcome in zip(readings, outcomes, strict=True):
        first = [next((k for k in range(steps + 1) if start + k in ZONE), None) for start in STARTS]
        ends_inside = [start + steps in ZONE for start in STARTS]
        assert outcome.any == [k is None for k in first]
        assert outcome.last == ([not inside for inside in ends_inside] if reads_last else None)
        # Iterate k is queried by step k + 1, and what is found there is judged once. The last is judged in any case,
        # unless the image has left before.
        left = [k is not None and k < steps and not reads_last for k in first]
        taken = [k + 1 if gone and k is not None else steps for k, gone in zip(first, left, strict=True)]
        found = [k is not None and k < steps for k in first]
        judged_last = [not gone for gone in left]
        assert outcome.backwards == taken
        assert outcome.forwards == [sum(row) for row in zip(taken, found, judged_last, strict=True)]


def test_an_image_broken_on_the_way_but_not_at_the_end_is_robust_for_last_and_broken_for_any() -> None:
    (outcome,) = attack(WALK, zone, walkers([6]), WALK_THREAT, [5])
    assert (outcome.any, outcome.last) == ([False], [True])


def test_an_image_broken_at_the_end_is_broken_for_both() -> None:
    (outcome,) = attack(WALK, zone, walkers([4]), WALK_THREAT, [5])
    assert (outcome.any, outcome.last) == ([False], [False])


def test_the_judge_has_the_last_word() -> None:
    """What the searched classifier calls misclassified is robust if the judge says so."""

    def always_correct(points: Tensor, position: Tensor) -> Tensor:
        assert len(points) == len(position)
        return torch.full((len(points),), -1)

    (outcome,) = attack(WALK, zone, walkers(STARTS), WALK_THREAT, [5], judge=always_correct)
    assert outcome.any == outcome.last == [True] * len(STARTS)


def test_no_images_give_empty_readings() -> None:
    (outcome,) = attack(WALK, zone, walkers([]), WALK_THREAT, [5])
    assert outcome == AttackOutcome([], [], [], [], [])


# --- Costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads_last", [True, False])
def test_a_robust_image_costs_a_pass_a_step_and_one_to_judge_the_last(reads_last: bool) -> None:
    spec = replace(EXACT_PGD, reads_last=reads_last)
    (outcome,) = attack(spec, ExactNetwork(), exact_images(5), ThreatModel("Linf", 0.0), [7])
    assert outcome.any == [True] * 5
    assert outcome.forwards == [8] * 5
    assert outcome.backwards == [7] * 5


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("reads_last", [True, False])
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_the_passes_reported_are_the_passes_made(restarts: int, reads_last: bool, batch_size: int) -> None:
    spec = replace(EXACT_PGD, restarts=restarts, reads_last=reads_last)
    x, network = exact_images(), ExactNetwork()
    (outcome,) = attack(spec, network, x, EXACT_THREAT, [6], batch_size=batch_size)
    labels = len(x)  # what the helper spends to know them
    assert network.images == labels + sum(outcome.forwards)


def test_one_trajectory_costs_less_than_its_readings_alone() -> None:
    x, network = exact_images(), ExactNetwork()
    together = attack(EXACT_PGD, network, x, EXACT_THREAT, [5, 10])
    assert network.images - len(x) < 0.8 * sum(sum(outcome.forwards) for outcome in together)


def test_broken_images_stop_costing_where_only_any_iterate_is_read() -> None:
    readings = [5]
    (any_only,) = attack(replace(WALK, reads_last=False), zone, walkers([7, 7, 0]), WALK_THREAT, readings, batch_size=2)
    (both,) = attack(WALK, zone, walkers([7, 7, 0]), WALK_THREAT, readings, batch_size=2)
    assert any_only.backwards == [2, 2, 5]
    assert both.backwards == [5, 5, 5]


def test_the_batch_is_refilled_as_images_leave() -> None:
    """In a batch of two, images that leave after two steps pass beside, and then after, one that stays for five."""
    sizes: list[int] = []
    spec = replace(WALK, reads_last=False)
    attack(spec, zone, walkers([0, 7, 7, 7, 7]), WALK_THREAT, [5], batch_size=2, progress=sizes.append)
    assert sizes == [2, 2, 2, 2, 2, 2, 1]


def test_progress_adds_up_to_all_steps_of_all_images() -> None:
    sizes: list[int] = []
    attack(WALK, zone, walkers(STARTS), WALK_THREAT, [2, 5], batch_size=4, progress=sizes.append)
    assert sum(sizes) == 5 * len(STARTS)
    assert max(sizes) == 4


# --- Restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads_last", [True, False])
def test_only_undecided_images_are_started_again(reads_last: bool) -> None:
    begun: list[tuple[int, int]] = []

    def recording_init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Walk:
        begun.extend(zip(draws.index.tolist(), draws.restart.tolist(), strict=True))
        return walk_init(x, y, threat, draws)

    spec = replace(WALK, method=Recurrence(recording_init, walk_step), restarts=3, reads_last=reads_last)
    # Robust; broken on the way only; broken at the end.
    attack(spec, zone, walkers([0, 6, 4]), WALK_THREAT, [5], index=torch.tensor([10, 11, 12]), batch_size=2)
    again = [10, 11] if reads_last else [10]
    expected = [(index, 0) for index in (10, 11, 12)] + [(index, restart) for restart in (1, 2) for index in again]
    assert sorted(begun) == sorted(expected)


def test_each_restart_of_each_image_starts_from_a_draw_of_its_own() -> None:
    starts: list[Tensor] = []

    def recording_init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, start: str) -> pgd.State:
        state = pgd.init(x, y, threat, draws, start=start)
        starts.extend(state.x_adv.flatten(1))
        return state

    spec = replace(ATTACKS["pgd-20x10"], method=Recurrence(recording_init, pgd.step), restarts=4)
    x = torch.full((3, 1, 8, 8), 0.5)
    attack(spec, ExactNetwork(), x, ThreatModel("Linf", 1e-3), [2], batch_size=2)
    assert len(torch.stack(starts).unique(dim=0)) == len(starts) == 12


def test_more_restarts_never_make_an_image_robust_again() -> None:
    x, network = exact_images(), ExactNetwork()
    broken = [0]
    for restarts in (1, 2, 6):
        (outcome,) = attack(replace(EXACT_PGD, restarts=restarts), network, x, EXACT_THREAT, [3])
        broken.append(outcome.any.count(False))
    assert broken == sorted(broken)
    assert broken[1] < broken[3]


# --- Judging ----------------------------------------------------------------------------------------------------------


def recording(verdict: Callable[[Tensor], Tensor]) -> tuple[loop.Judge, list[tuple[int, int]]]:
    """A judge by what is still correct, and the (image, sixteenths) that it was shown."""
    shown: list[tuple[int, int]] = []

    def judge(points: Tensor, position: Tensor) -> Tensor:
        shown.extend(zip(position.tolist(), (16 * points.flatten()).int().tolist(), strict=True))
        return torch.where(verdict(points), -1, 1)

    return judge, shown


def test_the_judge_sees_what_the_search_misclassifies_and_the_iterates_that_are_read() -> None:
    judge, shown = recording(lambda points: zone(points).argmax(1) == 0)
    attack(WALK, zone, walkers([0, 6]), WALK_THREAT, [3, 5], judge=judge)
    # Image 1 is in the zone at 8 and 9, and known to be broken after 8.
    assert sorted(shown) == [(0, 3), (0, 5), (1, 8), (1, 9), (1, 11)]


def always_sure(x: Tensor) -> Tensor:
    """Class 0 by far, wherever."""
    return torch.tensor([100.0, 0.0]) + 0 * x.flatten(1)[:, :1]


def test_for_transfer_every_iterate_is_judged_though_the_search_never_misclassifies() -> None:
    judge, shown = recording(lambda points: torch.ones(len(points), dtype=torch.bool))
    (outcome,) = attack(WALK, always_sure, walkers([0, 7]), WALK_THREAT, [5], judge=judge, judge_every_iterate=True)
    assert sorted(shown) == [(0, k) for k in range(6)] + [(1, 7 + k) for k in range(6)]
    assert outcome.forwards == [5 + 6] * 2
    assert outcome.backwards == [5] * 2


def test_for_transfer_an_iterate_that_only_the_judge_misclassifies_counts() -> None:
    judge, _ = recording(lambda points: zone(points).argmax(1) == 0)
    x = walkers([0, 6, 4])
    for readings in ([5], [2, 5]):
        outcome = attack(WALK, always_sure, x, WALK_THREAT, readings, judge=judge, judge_every_iterate=True)[-1]
        assert outcome.any == [True, False, False]
        assert outcome.last == [True, True, False]
    (without,) = attack(WALK, always_sure, x, WALK_THREAT, [5], judge=judge)
    assert without.any == [True, True, False]


def test_a_reading_does_not_depend_on_which_others_are_read() -> None:
    """Also where the judge sees less on the way than at the readings, as when the search is not in float32."""
    judge, _ = recording(lambda points: zone(points).argmax(1) == 0)
    (alone,) = attack(WALK, always_sure, walkers([0, 6, 4]), WALK_THREAT, [5], judge=judge)
    beside = attack(WALK, always_sure, walkers([0, 6, 4]), WALK_THREAT, [2, 5], judge=judge)[-1]
    assert beside == alone


def test_a_query_outside_the_set_is_no_point_to_judge_but_a_proposal_outside_is_shown_to_the_judge() -> None:
    """Searching outside is an attack's own affair; the judge raises at proposals outside, so they must reach it."""
    judge, shown = recording(lambda points: zone(points).argmax(1) == 0)
    attack(WALK, zone, walkers([6]), ThreatModel("Linf", 1 / 16), [5], judge=judge)
    assert shown == [(0, 11)]


def slope(x: Tensor) -> Tensor:
    """Class 0 leads by 1 - 2x below 1/2, and by 2 from there on."""
    place = x.flatten(1)[:, :1]
    return torch.cat([torch.where(place < 0.5, 1 - 2 * place, 2.0), 0 * place], 1)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_attack_stops_on_an_image_when_its_margin_does_not_fall_between_two_checks(batch_size: int) -> None:
    """From 0 the margin is 7/8, 5/8, 3/8 at the checks, each time less by over a quarter; from 1/2 it never falls."""
    x, y = walkers([0, 8]), torch.zeros(2, dtype=torch.long)

    def passes(stopping: EarlyStopping | None) -> list[int]:
        attack = replace(WALK, early_stopping=stopping, reads_last=False)
        (reading,) = loop.run(
            attack,
            slope,
            lambda points, _: torch.full((len(points),), -1),
            x,
            y,
            torch.arange(2),
            ThreatModel("Linf", 1.0),
            readings=[7],
            seed=SEED,
            batch_size=batch_size,
        )
        assert reading.correct_any.all()
        return reading.forwards.tolist()

    assert passes(None) == [8, 8]
    assert passes(EarlyStopping(checks=(2, 4, 6), least_decrease=0.25)) == [8, 4]
    assert passes(EarlyStopping(checks=(2, 4, 6), least_decrease=0.35)) == [4, 4]
    assert passes(EarlyStopping(checks=(6,), least_decrease=0.9)) == [8, 8]  # there was no look before


@pytest.mark.parametrize("wrong", [{"reads_last": True}, {"restarts": 2}])
def test_patience_is_refused_where_a_last_iterate_or_another_start_would_be_missing(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="early stopping is for a recurrence"):
        replace(WALK, **{"reads_last": False, "early_stopping": EarlyStopping((2,), 0.1), **wrong})


def test_each_reading_tells_how_near_the_attack_came_up_to_its_own_step() -> None:
    x = walkers([0])
    attack = replace(WALK, reads_last=False)
    arguments = attack, slope, lambda points, _: torch.full((len(points),), -1), x
    settings: dict[str, Any] = {"readings": [2, 5], "seed": SEED, "batch_size": 1, "tracks_closest": True}
    readings = loop.run(*arguments, torch.tensor([0]), torch.tensor([0]), ThreatModel("Linf", 1.0), **settings)
    assert [reading.closest.tolist() for reading in readings if reading.closest is not None] == [[7 / 8], [1 / 2]]


def test_a_gradient_that_becomes_nan_on_the_way_ends_the_attack_with_a_word() -> None:
    def rooted(x: Tensor) -> Tensor:
        """The gradient of the root is infinite at 5/16, which a walk from 3/16 comes to."""
        place = x.flatten(1)[:, :1]
        return torch.cat([1 + (place - 5 / 16).abs().sqrt(), 0 * place], 1)

    with pytest.raises(InputError, match="expected finite gradients"):
        loop.run(
            replace(WALK, reads_last=False),
            rooted,
            lambda points, _: torch.full((len(points),), -1),
            walkers([3]),
            torch.tensor([0]),
            torch.tensor([0]),
            ThreatModel("Linf", 1.0),
            readings=[5],
            seed=SEED,
            batch_size=1,
        )
