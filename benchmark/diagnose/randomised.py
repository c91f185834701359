"""Averages are not worst cases: what single draws, the mean and the worst of many draws say of a randomised model."""

import torch
from torch import Tensor, nn

from attacks import attack
from attacks.generators import seeded
from attacks.judge import withstands
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.diagnose.finding import Measured
from benchmark.stats.shares import wilson

DRAWS = 20
"""As many as `attacks/randomness.py` averages to judge."""


def randomised_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    tested: AttackSpec,
    *,
    seed: int,
    surrogate: nn.Module | None = None,
    rejected: int | None = None,
) -> tuple[list[Measured], float, float]:
    """Accuracies over 20 draws of the model, clean (the control) and under the attack, with 95% Wilson intervals.

    Both meet the same number of passes: what the worst of 20 loses on clean images is chance, and no attack.

    Args:
        model: answers at random. x: (N, C, H, W) in [0, 1]; y, index: (N,).
        surrogate: what an adaptive attack searches on in its place.
        rejected: what it answers in place of a class where it rejects an image.

    Returns: rows that only inform; forward and backward passes of the attack and of the draws, in total.
    Source: Carlini et al., arXiv:1902.06705, on randomised defenses; this project's naming.
    """
    on = {"source": surrogate, "rejects": rejected is not None, "index": index, "seed": seed}
    shown = attack(model, x, y, tested, epsilon=threat.epsilon, norm=threat.norm, **on)  # type: ignore[arg-type]
    rows = [*_rows(model, "clean", x, y, None), *_rows(model, "attacked", shown.x_adv, y, rejected)]
    return rows, float(shown.forwards.sum()) + 2 * DRAWS * len(x), float(shown.backwards.sum())


@torch.no_grad()
def _rows(model: nn.Module, name: str, points: Tensor, y: Tensor, rejected: int | None) -> list[Measured]:
    answers = []
    for draw in range(DRAWS):
        with seeded("diagnosis", draw):
            answers.append(model(points).float().softmax(1))
    correct = torch.stack([withstands(answer.argmax(1), y, rejected) for answer in answers])
    counted = {
        "single-draw": correct[0],
        "expected": withstands(torch.stack(answers).mean(0).argmax(1), y, rejected),
        "worst-of-20": correct.all(0),
    }
    return [_row(f"{name}-{kind}", held) for kind, held in counted.items()]


def _row(check: str, held: Tensor) -> Measured:
    count, n = int(held.sum()), len(held)
    low, high = wilson(count, n)
    return Measured(check, 100 * count / n, None, None, f"accuracy, {count} of {n} (95% interval {low:.1f}-{high:.1f})")
