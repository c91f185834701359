"""What a run is about to do, in the line that it begins with, and how long that takes as far as the store can tell."""

import itertools
from collections.abc import Collection, Iterator, Sequence

import torch

from benchmark.evaluation.hardware import Hardware, device_name
from benchmark.store.chunk import Range
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key
from benchmark.sweep.lacking import lacking

FEW = 3
"""So many models or attacks are named; more are counted."""
OF_A_CASE, OF_A_KIND = 3, 10
"""The most stored chunks of a case, and of an attack and a network, that an estimate is made of."""


def outlook(grid: Sequence[EvalCase], store: Store, hardware: Hardware) -> str:
    """One line: what is run on what, what of it is stored, by what it is computed, and how long that takes.

    The time is an estimate by stored chunks of the same attacks and networks on this device; without them none is said.
    """
    first = max(grid, key=lambda case: case.n)
    todo = [(case, chunks) for case, chunks in lacking(grid, store, hardware) if chunks]
    what = (
        f"{_names([case.model.name for case in grid], 'models')} under "
        f"{_names([case.attack.name for case in grid], 'attacks')}: {first.dataset}, {first.threat.norm} "
        f"{first.threat.epsilon:.6g}, {first.n:,} images; {len(grid):,} case{'s' * (len(grid) != 1)}, "
        f"{len(grid) - len(todo):,} stored"
    )
    if not todo:
        return f"{what}; nothing is to be computed"
    workers = f", {hardware.workers} workers" if hardware.workers > 1 else ""
    seconds = _seconds(todo, grid, store, hardware)
    time = "" if seconds is None else f"; about {_duration(seconds / hardware.workers)}"
    return f"{what}; {device_name(hardware)}, {_precision(hardware)}{workers}{time}"


def _names(names: Sequence[str], noun: str) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct) if len(distinct) <= FEW else f"{len(distinct)} {noun}"


def _precision(hardware: Hardware) -> str:
    return "bf16" if hardware.precision == torch.bfloat16 else "fp32"


def _seconds(
    todo: Sequence[tuple[EvalCase, Collection[Range]]], grid: Sequence[EvalCase], store: Store, hardware: Hardware
) -> float | None:
    """What the missing chunks take one after the other; None where nothing like one of them is stored."""
    seconds, rates = 0.0, dict[tuple[str, str], float | None]()
    for case, chunks in todo:
        kind = _kind(case)
        if kind not in rates:
            rates[kind] = _rate([other for other in grid if _kind(other) == kind], store, hardware)
        rate = rates[kind]
        if rate is None:
            return None
        seconds += rate * sum(stop - start for start, stop in chunks)
    return seconds


def _kind(case: EvalCase) -> tuple[str, str]:
    """Cases of one kind take much the same time an image."""
    return case.attack.name, case.source.architecture


def _rate(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> float | None:
    """Seconds an image, by stored chunks of some cases on this device in this precision."""
    found = list(itertools.islice(_alike(cases, store, hardware), OF_A_KIND))
    images = sum(n for n, _ in found)
    return sum(seconds for _, seconds in found) / images if images else None


def _alike(cases: Sequence[EvalCase], store: Store, hardware: Hardware) -> Iterator[tuple[int, float]]:
    """Images and seconds of stored chunks that were computed as this run computes."""
    for case in cases:
        for n, timing in store.timing(case_key(case), OF_A_CASE):
            if (timing.get("device"), timing.get("precision")) == (device_name(hardware), _precision(hardware)):
                yield n, float(timing["seconds"])


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
