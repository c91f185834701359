"""How many operations, and questions to the device, an attack's step takes beside the model's own.

Where networks are small, or the device is fast, these are what an attack costs. Views are no operations: they touch no
memory, and a GPU launches nothing for them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attacks import loop
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel

QUESTIONS = {f"aten::{name}" for name in ("_local_scalar_dense", "nonzero", "is_nonzero")}
ONLY_VIEWS = "view _unsafe_view expand unsqueeze squeeze t select slice detach alias unbind lift_fresh permute split"
VIEWS = {f"aten::{name}" for name in ONLY_VIEWS.split()}
N, CLASSES, SIZE = 16, 10, 20


class Counting(TorchDispatchMode):
    """Counts what is dispatched in the block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.counts[function._schema.name] += 1
        return function(*args, **(kwargs or {}))

    @property
    def operations(self) -> int:
        return sum(count for name, count in self.counts.items() if name not in VIEWS)

    @property
    def questions(self) -> int:
        return sum(count for name, count in self.counts.items() if name in QUESTIONS)


def robust_model() -> nn.Module:
    """One matrix product, and another for its gradient: no attack brings an image across."""
    torch.manual_seed(0)
    linear = nn.Linear(SIZE * SIZE, CLASSES)
    with torch.no_grad():
        linear.weight.mul_(0.01)
        linear.bias.copy_(torch.arange(10.0))
    return nn.Sequential(nn.Flatten(), linear).eval().requires_grad_(False)


def per_step(name: str, steps: int, first: int, last: int) -> tuple[float, float]:
    """Operations beside the model's, and questions, a step, from the first to the last of an attack's steps."""
    model, x = robust_model(), torch.rand(N, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    y, own, seen = model(x).argmax(1), [0], []

    def classifier(points: Tensor) -> Tensor:
        own[0] += 1 + points.requires_grad
        logits: Tensor = model(points)
        return logits

    def progress(_: int) -> None:
        seen.append((counting.operations - own[0], counting.questions))

    with Counting() as counting:
        loop.run(
            ATTACKS[name].with_settings(steps=steps, restarts=1), classifier, no_judge, x, y, torch.arange(N),
            ThreatModel("Linf", 0.01), readings=[steps], seed=0, batch_size=N, classes=CLASSES, progress=progress,
        )  # fmt: skip
    taken = last - first
    return (seen[last][0] - seen[first][0]) / taken, (seen[last][1] - seen[first][1]) / taken


def no_judge(_: Tensor, position: Tensor) -> Tensor:
    return torch.full_like(position, -1)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("pgd-20", 20),
        ("mi-fgsm", 37),
        ("cw-linf", 21),
        ("apgd-dlr", 48),
        ("apgd-ce", 40),
        ("apgd-t", 41),
        ("fab-t", 84),
    ],
)
@pytest.mark.parametrize("waits", [True, False])
def test_a_step_takes_few_operations_and_few_questions(
    name: str, most: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "may_wait", lambda *_: waits)
    operations, questions = per_step(name, 100, 43, 93)
    assert operations <= most + (not waits)  # who does not wait asks at every step
    queries = 2 if name == "fab-t" else 1
    assert questions <= (queries / 8 if waits else 1.1)


def test_a_query_of_square_takes_few_operations() -> None:
    operations, questions = per_step("square", 5, 1, 4)
    queries = ATTACKS["square"].params["queries_per_step"]
    draws = 300  # of all squares of a step
    assert operations - draws <= 15 * queries
    assert questions <= queries / 8
