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
from attacks.registry import Proposer
from benchmark.case import EvalCase
from benchmark.data import Split
from benchmark.verdicts import Verdicts, judge


@dataclass(frozen=True)
class Hardware:
    """How a run uses the machine; recorded beside its numbers, and no part of their identity.

    Args:
        device: "cpu" or "cuda".
        precision: of the search; judging is always float32.
        batch_size: images attacked at a time.
    """

    device: torch.device
    precision: torch.dtype
    batch_size: int


def evaluate(
    cases: Sequence[EvalCase],
    target: nn.Module,
    source: nn.Module,
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
        chunk: the images, on the CPU.
        prediction: (N,) the target's classes of the clean images; those that are wrong are not attacked.
        progress: called after every step with the number of images that took it.

    Returns: the verdicts of each case.
    """
    x, y, index = (tensor.to(hardware.device) for tensor in (chunk.x, chunk.y, chunk.index))
    attacked = (prediction == y).nonzero().squeeze(1)
    readings = _attack(cases, target, source, x[attacked], y[attacked], index[attacked], hardware, progress)
    return [_verdicts(chunk, prediction, attacked, reading) for reading in readings]


def _attack(
    cases: Sequence[EvalCase],
    target: nn.Module,
    source: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    hardware: Hardware,
    progress: Callable[[int], None],
) -> list[loop.Reading]:
    """Readings of the images given, all of which the target classifies correctly."""
    case = cases[0]

    def still_correct(points: Tensor, position: Tensor) -> Tensor:
        return judge(target, x[position], y[position], points, case.threat, batch_size=hardware.batch_size)

    if isinstance(case.attack.method, Proposer):
        everything = torch.arange(len(x), device=x.device)
        return [_propose(case, case.attack.method, source, still_correct, x, y, index, everything)]
    return loop.run(
        case.attack,
        source,
        still_correct,
        x,
        y,
        index,
        case.threat,
        readings=[case.attack.steps for case in cases],
        seed=case.seed,
        batch_size=hardware.batch_size,
        judge_every_iterate=case.is_transfer,
        precision=hardware.precision,
        progress=progress,
    )


def _propose(
    case: EvalCase,
    method: Proposer,
    source: nn.Module,
    still_correct: loop.Judge,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    everything: Tensor,
) -> loop.Reading:
    """A third-party attack on the whole chunk, whose passes are shared out evenly: who caused them is not known."""
    counting = CountingClassifier(source)
    correct = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if len(x):
        seed = case.seed + int(index[0])  # its draws go by place in the batch: no two chunks get the same
        x_adv = method.propose(counting, x, y, case.threat, seed=seed, **case.attack.propose_params)
        correct = still_correct(x_adv, everything)
    share = 1 / max(len(x), 1)
    return loop.Reading(
        steps=case.attack.steps,
        correct_any=correct,
        correct_last=None,
        forwards=torch.full((len(x),), counting.forwards * share + 1, dtype=torch.float64),
        backwards=torch.full((len(x),), counting.backwards * share, dtype=torch.float64),
    )


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


def halved(hardware: Hardware) -> Hardware:
    """The same with half the batch, for when memory ran out; it changes no draw."""
    return replace(hardware, batch_size=max(1, hardware.batch_size // 2))
