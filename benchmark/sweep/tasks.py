"""What is computed at once: a task, one or more chunks of the cases that one trajectory serves."""

from collections.abc import Sequence
from dataclasses import dataclass

from attacks.spec import CHUNK_SIZE, task_size
from benchmark.evaluation.hardware import Hardware
from benchmark.store.chunk import Range, chunk_ranges
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key, trajectory_key
from benchmark.sweep.lacking import lacking

TASKS_A_WORKER = 4
"""Where the batch size is left to the program, a task is at most this part of a worker's share of a run: so that at the
end no worker waits long for another."""


@dataclass(frozen=True)
class Task:
    """Consecutive chunks of the cases that one trajectory serves, computed at once and stored one by one.

    Args:
        cases: they differ in their step count only, ascending.
        chunks: in order.
    """

    cases: Sequence[EvalCase]
    chunks: Sequence[Range]

    @property
    def images(self) -> Range:
        """Where its images start and stop."""
        return self.chunks[0][0], self.chunks[-1][1]

    @property
    def weight(self) -> int:
        """The steps of single images that it takes at most."""
        start, stop = self.images
        return (stop - start) * self.cases[-1].attack.weight

    @property
    def title(self) -> str:
        """The cases as people read them."""
        return title_of(self.cases)


def title_of(group: Sequence[EvalCase]) -> str:
    """The cases of one trajectory as people read them: MODEL: ATTACK, ATTACK from SOURCE."""
    via = f" from {group[0].source.name}" if group[0].is_transfer else ""
    return f"{group[0].model.name}: {', '.join(case.cell[1] for case in group)}{via}"


def trajectories(cases: Sequence[EvalCase], *, keeps_images: bool = False) -> list[list[EvalCase]]:
    """Cases that one trajectory serves, together, by ascending step count; each alone where images are kept."""
    if keeps_images:
        return [[case] for case in cases]
    groups: dict[str, list[EvalCase]] = {}
    for case in cases:
        groups.setdefault(trajectory_key(case), []).append(case)
    return [sorted(group, key=lambda case: case.attack.steps) for group in groups.values()]


def weight(group: Sequence[EvalCase]) -> int:
    """The steps of single images that the cases of one trajectory take at most."""
    return group[0].n * group[-1].attack.weight


def all_tasks(cases: Sequence[EvalCase], run: Sequence[EvalCase], hardware: Hardware) -> list[Task]:
    """The tasks of some cases, model by model in the order of the cases, the longest of a model's first.

    What a task is made of depends on the run alone, and not on what of it is stored: so a run that was interrupted
    attacks an image beside the same others as one that was not.

    Args:
        cases: of the run.
        run: all cases of the run.
        hardware: as asked for, before a batch turned out not to fit.
    """
    runs_groups = trajectories(run, keeps_images=hardware.keeps_images)
    whole = sum(map(weight, runs_groups))
    sizes = {case_key(case): _chunks_a_task(group, whole, hardware) for group in runs_groups for case in group}
    tasks = []
    for group in trajectories(cases, keeps_images=hardware.keeps_images):
        chunks, size = chunk_ranges(group[0].n), sizes[case_key(group[0])]
        tasks += [Task(group, chunks[first : first + size]) for first in range(0, len(chunks), size)]
    place = {name: place for place, name in enumerate(dict.fromkeys(case.model.name for case in cases))}
    return sorted(tasks, key=lambda task: (place[task.cases[0].model.name], -task.weight))


def _chunks_a_task(group: Sequence[EvalCase], whole: int, hardware: Hardware) -> int:
    """Enough for a full batch, as far as draws and other workers allow.

    Args:
        whole: the weight of the whole run.
    """
    chunks = task_size(hardware.batch_size, draws_by_batch=group[0].draws_by_batch) // CHUNK_SIZE
    if hardware.finds_batch and hardware.workers > 1:
        of_a_chunk = CHUNK_SIZE * group[-1].attack.weight
        chunks = min(chunks, whole // (TASKS_A_WORKER * hardware.workers * of_a_chunk))
    return max(chunks, 1)


def missing_tasks(
    cases: Sequence[EvalCase], run: Sequence[EvalCase], store: Store, hardware: Hardware
) -> tuple[list[Task], list[int]]:
    """The tasks of which a chunk of one of their cases is lacking.

    Args:
        cases, run, hardware: as for `all_tasks`.

    Returns: the tasks, in its order, and how many images each adds, a case's own counted once.
    """
    absent = {case_key(case): chunks for case, chunks in lacking(cases, store, hardware)}
    images = [
        (task, sum(stop - start for case in task.cases for start, stop in absent[case_key(case)] & set(task.chunks)))
        for task in all_tasks(cases, run, hardware)
    ]
    return [task for task, added in images if added], [added for _, added in images if added]
