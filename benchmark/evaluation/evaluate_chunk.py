"""Images under one attack, for all cases that one trajectory serves: verdicts."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from attacks.attack_batch import AttackOutcome, Setting, run_attack
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase


def evaluate_chunk(
    cases: Sequence[EvalCase],
    target: nn.Module,
    source: nn.Module,
    searched: nn.Module,
    images: Split,
    prediction: Tensor,
    hardware: Hardware,
    **watching: Callable[..., None],
) -> list[Verdicts]:
    """Attack images once, for all cases that one trajectory serves.

    Args:
        cases: they differ in their step count only, ascending; of a randomised model there is one.
        target, source, searched, prediction: as for `run_attack`.
        images: of one task; of one chunk where draws belong to a batch.
        watching: `progress` and `observe` of `run_attack`.

    Returns: the verdicts of each case.
    """
    x, y, index = images.on(hardware.device)
    case = cases[0]
    setting = Setting(
        case.threat,
        case.seed,
        hardware.batch_size,
        hardware.precision,
        eot=case.eot,
        judge_draws=case.judge_draws,
        is_randomized=case.is_randomized,
        is_transfer=case.is_transfer or case.is_adaptive,
        rejects=case.model.rejects,
    )
    steps = [case.attack.steps for case in cases]
    on: dict[str, Any] = {"classes": images.classes, "readings": steps, "prediction": prediction, **watching}
    outcomes = run_attack(case.attack, target, source, searched, x, y, index, setting, **on)
    return [_verdicts(images, outcome) for outcome in outcomes]


def _verdicts(images: Split, outcome: AttackOutcome) -> Verdicts:
    found = vars(outcome).items()
    columns: dict[str, Any] = {name: None if column is None else column.cpu().numpy() for name, column in found}
    return Verdicts(index=images.index.numpy(), label=images.y.numpy(), **columns)
