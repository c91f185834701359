"""The progress bar of a sweep: it counts attacked images, and the time that is left follows the steps they take."""

import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tqdm import tqdm

from benchmark.suites.case import EvalCase
from benchmark.sweep.tasks import Task, trajectories, weight

WIDTH = 100
"""The most columns of a line in the terminal."""
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
SLOW = 3.0
"""Seconds that a user waits without a word."""


@contextmanager
def said_if_slow(line: str, *, quiet: bool, seconds: float = SLOW) -> Iterator[None]:
    """Say what is being done, on stderr, where the block takes longer than some seconds."""
    timer = threading.Timer(seconds, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class SweepBar:
    """The bar of the tasks of a sweep, begun at what is stored already.

    Args:
        todo: the tasks, in the order in which they are handed out.
        images: of each task how many it adds, each case's counted.
        cases: of the whole run, those that are stored among them.
    """

    def __init__(self, todo: Sequence[Task], images: Sequence[int], cases: Sequence[EvalCase], *, quiet: bool) -> None:
        self._todo, self._images = todo, images
        self._waiting = dict.fromkeys(range(len(todo)))
        self._all_images = sum(case.n for case in cases)
        steps = sum(map(weight, trajectories(cases)))
        missing = sum(task.weight for task in todo)
        self._steps = max(steps - missing, 0)
        columns = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        self._bar = tqdm(
            desc=self._name(),
            total=self._steps + missing,
            initial=self._steps,
            postfix=self._count(),
            bar_format=FORMAT,
            ncols=columns,
            disable=quiet,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, steps: int) -> None:
        """Steps of single images were taken, in a task that is not finished."""
        self._bar.update(steps)

    def finish(self, task: int) -> None:
        """A task is done. The bar names the first that is not: as they are handed out in order, it is under way."""
        del self._waiting[task]
        self._steps += self._todo[task].weight
        self._bar.update(self._steps - self._bar.n)
        self._bar.set_postfix_str(self._count(), refresh=False)
        self._bar.set_description_str(self._name())

    def _count(self) -> str:
        left = sum(self._images[task] for task in self._waiting)
        return f"{self._all_images - left:,} of {self._all_images:,} images"

    def _name(self) -> str:
        return self._todo[next(iter(self._waiting), len(self._todo) - 1)].title
