"""One chunk of images under one attack: x_adv proposed, judged, turned into verdicts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks import loop
from attacks.oracle import CountingClassifier
from attacks.registry import AttackSpec, Ensemble, Proposer
from benchmark.case import EvalCase
from benchmark.data import Split
from benchmark.hardware import Hardware
from benchmark.verdicts import Verdicts, judge


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
) -> list[Verdicts]:
    """Attack a chunk once, for all cases that one trajectory serves.

    Args:
        cases: they differ in their step count only, ascending.
        target: judged; source: crafted on; the same module for white-box cases. Both in eval mode, on the device.
        searched: the source's copy for searching in the hardware's precision (`search_model`).
        chunk: the images, on the CPU.
        prediction: (N,) the target's classes of the clean images; those that are wrong are not attacked.
        progress: called after every step with the number of images that took it.

    Returns: the verdicts of each case.
    """
    x, y, index = (tensor.to(hardware.device) for tensor in (chunk.x, chunk.y, chunk.index))
    attacked = (prediction == y).nonzero().squeeze(1)
    case = cases[0]

    def still_correct(points: Tensor, position: Tensor) -> Tensor:
        rows = attacked[position]
        return judge(target, x[rows], y[rows], points, case.threat, batch_size=hardware.batch_size)

    everything = x[attacked], y[attacked], index[attacked]
    task = _Task(case, source, searched, still_correct, *everything, chunk.classes, hardware, progress)
    readings = _attack(task, case.attack, [case.attack.steps for case in cases])
    return [_verdicts(chunk, prediction, attacked, reading) for reading in readings]


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
    tracks_closest: bool = False

    def of(self, rows: Tensor) -> "_Task":
        """The same for some of the images."""

        def still_correct(points: Tensor, position: Tensor) -> Tensor:
            return self.still_correct(points, rows[position])

        return replace(self, still_correct=still_correct, x=self.x[rows], y=self.y[rows], index=self.index[rows])


def _attack(task: _Task, attack: AttackSpec, readings: Sequence[int]) -> list[loop.Reading]:
    """Readings of the images of a task under an attack of any kind."""
    if isinstance(attack.method, Ensemble):
        return [_walk(task, attack.method)]
    if isinstance(attack.method, Proposer):
        return [_propose(task, attack, attack.method)]
    if attack.targeted:
        attack = replace(attack, restarts=min(attack.restarts, task.classes - 1))
    fast = attack.tolerates_rounding
    return loop.run(
        attack,
        task.searched if fast else task.source,
        task.still_correct,
        task.x,
        task.y,
        task.index,
        task.case.threat,
        readings=readings,
        seed=task.case.seed,
        batch_size=task.hardware.batch_size,
        judge_every_iterate=task.case.is_transfer,
        tracks_closest=task.tracks_closest,
        precision=task.hardware.precision if fast else torch.float32,
        progress=task.progress,
    )


def _walk(task: _Task, ensemble: Ensemble) -> loop.Reading:
    """Each attack is for those that the attacks before it left standing, and the scouts found near the boundary."""
    correct = torch.ones(len(task.x), dtype=torch.bool, device=task.x.device)
    forwards, backwards = torch.zeros_like(correct, dtype=torch.float64), torch.zeros_like(correct, dtype=torch.float64)
    closest = torch.full_like(forwards, torch.inf, dtype=torch.float32)
    scouts = len(ensemble.scouts)
    near_is_unknown = not scouts or task.case.is_transfer  # the source's boundary is not the target's
    for place, attack in enumerate((*ensemble.scouts, *ensemble.members)):
        wanted = correct if place < scouts or near_is_unknown else correct & (closest < ensemble.doubt)
        rows = wanted.nonzero().squeeze(1)
        if not len(rows):
            continue
        reading = _attack(replace(task.of(rows), tracks_closest=place < scouts), attack, [attack.steps])[0]
        correct[rows] = reading.correct_any
        forwards[rows] += reading.forwards
        backwards[rows] += reading.backwards
        if reading.closest is not None:
            closest[rows] = torch.minimum(closest[rows], reading.closest)
    return loop.Reading(ensemble.members[-1].steps, correct, None, forwards, backwards)


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
    return loop.Reading(attack.steps, correct, None, passes * counting.forwards + 1, passes * counting.backwards)


def _verdicts(chunk: Split, prediction: Tensor, attacked: Tensor, reading: loop.Reading) -> Verdicts:
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
    )
