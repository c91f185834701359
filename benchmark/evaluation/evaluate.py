"""One chunk of images under one attack: x_adv proposed, judged, turned into verdicts."""

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks import loop
from attacks.generators import seeded
from attacks.judge import judge, predict_expected, refuse_outside
from attacks.oracle import CountingClassifier
from attacks.proposals import propose
from attacks.search_model import precision_of
from attacks.spec import AttackSpec, Ensemble, Proposer
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.stats.shares import Bools
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase

ROUNDING_REACH = 0.1
"""How near (a lead relative to the spread of the logits, as in the DLR loss) a search that rounds may lose its way."""


def evaluate(
    cases: Sequence[EvalCase],
    target: nn.Module,
    source: nn.Module,
    searched: nn.Module,
    chunk: Split,
    prediction: Tensor,
    hardware: Hardware,
    *,
    progress: Callable[[int], None] = lambda _: None,
    see: Callable[[Tensor, Tensor, Tensor], None] = lambda *_: None,
) -> list[Verdicts]:
    """Attack a chunk once, for all cases that one trajectory serves.

    Args:
        cases: they differ in their step count only, ascending; of a randomised model there is one.
        target: judged; source: crafted on; the same module for white-box cases. Both in eval mode, on the device.
        searched: the source's copy for searching in the hardware's precision (`search_model`).
        chunk: the images, on the CPU.
        prediction: (N,) the target's classes of the clean images; those that are wrong are not attacked. For a
            randomised target they are found here, by the judge of its proposals.
        progress: called after every step with the number of images that took it.
        see: called with all that is judged: rows of the chunk (M,), points (M, C, H, W), still correct (M,).

    Returns: the verdicts of each case.
    """
    x, y, index = (tensor.to(hardware.device) for tensor in (chunk.x, chunk.y, chunk.index))
    case, batch_size = cases[0], hardware.batch_size
    key = case.seed, int(chunk.index[0])  # a model draws for the batch, so its draws belong to the chunk
    single = None

    def expected(points: Tensor) -> tuple[Tensor, Tensor]:
        return predict_expected(target, points, draws=case.judge_draws, key=key, batch_size=batch_size)

    if case.judge_draws:
        prediction, first = expected(x)
        single = (prediction == y) & (first == y)
    attacked = (prediction == y).nonzero().squeeze(1)

    def still_correct(points: Tensor, position: Tensor) -> Tensor:
        rows = attacked[position]
        if single is None:
            correct = judge(target, x[rows], y[rows], points, case.threat, batch_size=batch_size)
        else:
            refuse_outside(x[rows], points, case.threat)
            correct, first = (classes[rows] == y[rows] for classes in expected(x.index_copy(0, rows, points)))
            single[rows] &= first
        see(rows, points, correct)
        return correct

    everything = x[attacked], y[attacked], index[attacked]
    task = _Task(case, source, searched, still_correct, *everything, chunk.classes, hardware, progress)
    with seeded(*key, "search") if case.is_randomized else nullcontext():
        readings = _attack(task, case.attack, [case.attack.steps for case in cases])
    robust_single = None if single is None else single.cpu().numpy()
    return [_verdicts(chunk, prediction, attacked, reading, robust_single) for reading in readings]


@dataclass(frozen=True)
class _Task:
    """Images under attack, all classified correctly when clean, and what decides about them."""

    case: EvalCase
    source: nn.Module
    searched: nn.Module
    still_correct: loop.Judge
    x: Tensor
    y: Tensor
    index: Tensor
    classes: int
    hardware: Hardware
    progress: Callable[[int], None]

    def of(self, rows: Tensor) -> "_Task":
        """The same for some of the images."""

        def still_correct(points: Tensor, position: Tensor) -> Tensor:
            return self.still_correct(points, rows[position])

        return replace(self, still_correct=still_correct, x=self.x[rows], y=self.y[rows], index=self.index[rows])


def _attack(
    task: _Task, attack: AttackSpec, readings: Sequence[int], *, tracks_closest: bool = False
) -> list[loop.Reading]:
    """Readings of the images of a task under an attack of any kind."""
    if isinstance(attack.method, Ensemble):
        return [_walk(task, attack.method)]
    if isinstance(attack.method, Proposer):
        return [_propose(task, attack, attack.method)]
    if attack.targeted:
        attack = replace(attack, restarts=min(attack.restarts, task.classes - 1))
    if task.case.judge_draws:
        return [_expect(task, attack)]
    precision = precision_of(task.searched, task.hardware.precision)
    if attack.tolerates_rounding or precision == torch.float32:
        return _search(task, attack, readings, precision, tracks_closest=tracks_closest)
    return _search_twice(task, attack, readings)


def _search(
    task: _Task, attack: AttackSpec, readings: Sequence[int], precision: torch.dtype, *, tracks_closest: bool
) -> list[loop.Reading]:
    return loop.run(
        attack,
        task.source if precision == torch.float32 else task.searched,
        task.still_correct,
        task.x,
        task.y,
        task.index,
        task.case.threat,
        readings=readings,
        seed=task.case.seed,
        batch_size=task.hardware.batch_size,
        judge_every_iterate=task.case.is_transfer,
        tracks_closest=tracks_closest,
        precision=precision,
        eot=task.case.eot,
        progress=task.progress,
    )


def _expect(task: _Task, attack: AttackSpec) -> loop.Reading:
    """A randomised target is shown what each start proposes in the end: its best point and its last iterate."""
    precision = precision_of(task.searched, task.hardware.precision) if attack.tolerates_rounding else torch.float32
    searched = task.source if precision == torch.float32 else task.searched
    any_, last = (torch.ones(len(task.x), dtype=torch.bool, device=task.x.device) for _ in range(2))
    forwards, backwards = torch.zeros_like(task.y), torch.zeros_like(task.y)
    for restart in range(attack.restarts):
        rows = (any_ | last if attack.reads_last else any_).nonzero().squeeze(1)
        if not len(rows):
            break
        best_points, last_points = torch.empty_like(task.x), torch.empty_like(task.x)
        for part in rows.split(task.hardware.batch_size):
            images = task.x[part], task.y[part], task.index[part], task.case.threat
            found = propose(
                attack,
                searched,
                *images,
                restart=restart,
                seed=task.case.seed,
                precision=precision,
                eot=task.case.eot,
                progress=task.progress,
            )
            best_points[part], last_points[part] = found.best, found.last
            forwards[part] += found.forwards + 2 * task.case.judge_draws
            backwards[part] += found.backwards
        last[rows] &= task.still_correct(last_points[rows], rows)
        any_[rows] &= task.still_correct(best_points[rows], rows) & last[rows]
    return loop.Reading(attack.steps, any_, last if attack.reads_last else None, forwards, backwards)


def _search_twice(task: _Task, attack: AttackSpec, readings: Sequence[int]) -> list[loop.Reading]:
    """Search in the hardware's precision, then again in float32 for those left standing within its reach."""
    fast = _search(task, attack, readings, task.hardware.precision, tracks_closest=True)
    last = fast[-1]
    assert last.closest is not None
    rows = (last.correct_any & ((last.closest < ROUNDING_REACH) | task.case.is_transfer)).nonzero().squeeze(1)
    if len(rows):
        exact = _search(task.of(rows), attack, readings, torch.float32, tracks_closest=True)
        for once, again in zip(fast, exact, strict=True):
            assert once.closest is not None
            assert again.closest is not None
            once.correct_any[rows] = again.correct_any
            once.forwards[rows] += again.forwards
            once.backwards[rows] += again.backwards
            once.closest[rows] = torch.minimum(once.closest[rows], again.closest)
    return fast


def _walk(task: _Task, ensemble: Ensemble) -> loop.Reading:
    """Each attack is for those that the attacks before it left standing, and the scouts did not leave out."""
    correct = torch.ones(len(task.x), dtype=torch.bool, device=task.x.device)
    forwards, backwards = torch.zeros_like(correct, dtype=torch.float64), torch.zeros_like(correct, dtype=torch.float64)

    def spend(attack: AttackSpec, rows: Tensor, *, scouting: bool = False) -> Tensor | None:
        """Attack some images, and return how near it came to them, by its first look if it is patient."""
        looks = [] if attack.patience is None else attack.patience.looks[:1]
        readings = _attack(task.of(rows), attack, [*looks, attack.steps], tracks_closest=scouting)
        correct[rows] = readings[-1].correct_any
        forwards[rows] += readings[-1].forwards
        backwards[rows] += readings[-1].backwards
        return readings[0].closest

    wanted = torch.ones_like(correct)
    if ensemble.scouts and not (task.case.is_transfer or task.case.judge_draws):
        # by transfer the source's boundary is not the target's; of a randomised model nobody knows how near they came
        wanted = _scout(ensemble, correct, backwards, functools.partial(spend, scouting=True))
    for attack in ensemble.members:
        rows = (correct & wanted).nonzero().squeeze(1)
        if len(rows):
            spend(attack, rows)
    return loop.Reading(ensemble.members[-1].steps, correct, None, forwards, backwards)


def _scout(
    ensemble: Ensemble, correct: Tensor, backwards: Tensor, spend: Callable[[AttackSpec, Tensor], Tensor | None]
) -> Tensor:
    """Which images the members of an ensemble are for.

    Those that a scout came near to; and those to which random search came nearer than gradients did, for there the
    gradients say nothing.
    """
    by_gradient, by_search = (torch.full(correct.shape, torch.inf, device=correct.device) for _ in range(2))
    for scout in ensemble.scouts:
        rows = correct.nonzero().squeeze(1)
        if not len(rows):
            break
        before = backwards[rows].sum()
        closest = spend(scout, rows)
        assert closest is not None
        nearest = by_gradient if backwards[rows].sum() > before else by_search
        nearest[rows] = torch.minimum(nearest[rows], closest)
    return (torch.minimum(by_gradient, by_search) < ensemble.doubt) | (by_search < by_gradient)


def _propose(task: _Task, attack: AttackSpec, method: Proposer) -> loop.Reading:
    """A third-party attack on the whole chunk, whose passes are shared out evenly: who caused them is not known."""
    x, y = task.x, task.y
    counting = CountingClassifier(task.source)
    correct = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if len(x):
        seed = task.case.seed + int(task.index[0])  # its draws go by place in the batch: no two chunks get the same
        x_adv = method.propose(counting, x, y, task.case.threat, seed=seed, **attack.propose_params)
        correct = task.still_correct(x_adv, torch.arange(len(x), device=x.device))
    share = 1 / max(len(x), 1)
    passes = torch.full((len(x),), share, dtype=torch.float64, device=x.device)
    judged = max(task.case.judge_draws, 1)
    return loop.Reading(attack.steps, correct, None, passes * counting.forwards + judged, passes * counting.backwards)


def _verdicts(
    chunk: Split, prediction: Tensor, attacked: Tensor, reading: loop.Reading, robust_single: Bools | None
) -> Verdicts:
    """Images that are misclassified when clean are not robust, and cost nothing."""
    n, rows = len(chunk.y), attacked.cpu().numpy()

    def spread(values: Tensor, dtype: type) -> NDArray[Any]:
        column: NDArray[Any] = np.zeros(n, dtype=dtype)
        column[rows] = values.cpu().numpy()
        return column

    return Verdicts(
        index=chunk.index.numpy(),
        label=chunk.y.numpy(),
        prediction=prediction.cpu().numpy(),
        robust_any=spread(reading.correct_any, np.bool_),
        robust_last=None if reading.correct_last is None else spread(reading.correct_last, np.bool_),
        forwards=spread(reading.forwards, np.float64),
        backwards=spread(reading.backwards, np.float64),
        robust_single=robust_single,
    )
