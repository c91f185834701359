"""Complete verification: what a solver says of the classes that bounds leave open."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model_zoo.bounds.reach import Reach

INFEASIBLE, FOUND, OUT_OF_TIME = "infeasible", "found", "out of time"


@dataclass(frozen=True)
class Answer:
    """What is known of one class.

    Args:
        outcome: no point of the box has a logit of the class that reaches that of the label; one has; or neither is
            known in time.
        point: (C, H, W) float64, where there is one.
    """

    outcome: str
    point: Tensor | None = None


class Solver(Protocol):
    """What can tell whether the logit of another class can reach that of the label."""

    def answer(self, reaches: Sequence[Reach], label: int, other: int, seconds: float) -> Answer:
        """Of one image, whose reaches (N = 1) are those of every node; unknown after some seconds."""


def verify(
    solver: Solver,
    reaches: Sequence[Reach],
    label: int,
    others: Sequence[int],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> list[tuple[int, Answer]]:
    """What a solver says of some classes, one after the other, until one is reached or the time is over.

    Args:
        reaches: of one image (N = 1), of every node.
        others: classes, the likeliest first.
        seconds: for all of them together, by the clock.
    """
    found: list[tuple[int, Answer]] = []
    end = clock() + seconds
    for other in others:
        left = end - clock()
        answer = solver.answer(reaches, label, other, left) if left > 0 else Answer(OUT_OF_TIME)
        found.append((other, answer))
        if answer.outcome == FOUND:
            break
    return found
