"""What store and executors cost beside the attacks: python tests/programs/measure_sweep.py FOLDER [EXECUTOR ...].

Sweeps digits models in a fresh folder for each executor (local-1, local-2, ray-2) and prints what became of the
workers' time. Wall-clock time says little on a shared machine, so overheads are gaps: between the end of a chunk's
attack and the start of the next, as a share of the time inside of attacks, which load stretches as much.

startup_s    from the start of the sweep, its models checked, until all workers are attacking
idle_pct     workers without a chunk after that, until none is left to begin: claims, looks for what is missing,
             writes, messages, models loaded by a worker; in percent of the attack time meanwhile
tail_s       from the last chunk's start to the end of the sweep, less the attacks, summed over workers
others_cpu_s processor time of all processes below this one but the workers: Ray's own
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from attacks.registry import ATTACKS
from benchmark.data.datasets import load
from benchmark.evaluation.hardware import Hardware
from benchmark.store.chunk import unpack, whole_content
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key, trajectory_key
from benchmark.suites.grid import cases
from benchmark.suites.registry import SUITES
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.prepare import prepare
from benchmark.sweep.sweep import sweep
from model_zoo.files.locks import claim
from model_zoo.registry import MODELS

NAMES = ("pgd-20", "pgd-40", "pgd-100", "cw-linf", "mi-fgsm", "apgd-t", "fab-t", "autoattack-fast")
CPU = Hardware(torch.device("cpu"), torch.float32, 250)
TICK = os.sysconf("SC_CLK_TCK")
Interval = tuple[float, float]
"""Start and end of a chunk's attack, in seconds of the wall clock."""


def main() -> None:
    """Sweep, and measure."""
    torch.set_num_threads(1)
    folder, executors = Path(sys.argv[1]), sys.argv[2:] or ["local-1", "local-2", "ray-2"]
    split = load("digits", "test", data_dir=folder)
    models = [spec for spec in MODELS if spec.dataset == "digits"]
    attacks = [ATTACKS[name] for name in NAMES]
    grid = cases(SUITES["digits"], models, attacks, [], split, seed=0)
    for name in executors:
        executor, workers = name.split("-")
        hardware = replace(CPU, executor=executor, workers=int(workers))
        store = Store(folder / name)
        work = prepare(lacking_cases(grid, store, hardware), split, store, hardware, checkpoint_dir=folder)
        others = Others()
        started = time.time()
        sweep(work, store, hardware, quiet=True)
        ended = time.time()
        attacked = intervals(grid, store)
        figures = {"executor": name, "chunks": len(attacked), "wall_s": ended - started}
        figures |= shares(attacked, int(workers), started, ended) | {"others_cpu_s": others.seconds()}
        print(json.dumps({name: round(x, 2) if isinstance(x, float) else x for name, x in figures.items()}), flush=True)
    print(json.dumps(store_cost(Store(folder / executors[0]), Store(folder / "again"), case_key(grid[0]))), flush=True)


def intervals(grid: Sequence[EvalCase], store: Store) -> list[Interval]:
    """When each chunk was attacked: it is written right after, its file says how long it took."""
    took: dict[tuple[str, tuple[int, int]], list[Interval]] = {}
    for case in grid:
        for chunk, path in store.chunks(case_key(case)):
            content = whole_content(path)
            assert content is not None
            _, timing = unpack(content, case_key(case), chunk)
            written = path.stat().st_mtime
            took.setdefault((trajectory_key(case), chunk), []).append((written, timing["seconds"]))
    ends = {task: min(written for written, _ in files) for task, files in took.items()}
    return sorted((ends[task] - sum(seconds for _, seconds in files), ends[task]) for task, files in took.items())


def shares(attacked: Sequence[Interval], workers: int, started: float, ended: float) -> dict[str, float]:
    """What became of the workers' time."""
    busy = sum(stop - start for start, stop in attacked)
    all_work, none_left = attacked[workers - 1][0], attacked[-1][0]
    meanwhile = sum(max(0.0, min(stop, none_left) - max(start, all_work)) for start, stop in attacked)
    after = sum(max(0.0, stop - max(start, none_left)) for start, stop in attacked)
    return {
        "attack_s": busy,
        "startup_s": all_work - started,
        "idle_pct": 100 * (workers * (none_left - all_work) / meanwhile - 1),
        "tail_s": workers * (ended - none_left) - after,
    }


class Others:
    """Processor time of the processes below this one that are neither forks of it nor Ray's workers."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def seconds(self) -> float:
        """In sum, as last seen; nothing is watched any more."""
        self._over.set()
        self._thread.join()
        return sum(self._spent.values())

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            parents, spent = {}, {}
            for path in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):
                    command = path.with_name("cmdline").read_bytes()
                    fields = path.read_text().rpartition(")")[2].split()
                    parents[int(path.parent.name)] = int(fields[1])
                    if b"ray" in command and b"ray::Worker" not in command and b"measure_sweep" not in command:
                        spent[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / TICK
            below = {os.getpid()}
            for _ in itertools.repeat(None, 4):  # generations
                below |= {process for process, parent in parents.items() if parent in below}
            self._spent |= {process: seconds for process, seconds in spent.items() if process in below}


def store_cost(full: Store, empty: Store, key: str, chunks: int = 200) -> dict[str, float]:
    """Milliseconds of a claim, a look for what is missing and a write, for one chunk: wall clock and processor."""
    found = full.read(key, 500)
    assert found is not None
    verdicts, timing = found
    part = type(verdicts)(**{name: column[:250] for name, column in vars(verdicts).items() if column is not None})
    wall, cpu = time.perf_counter(), time.process_time()
    for chunk in range(chunks):
        with claim(empty.root, f"chunk {chunk}", wait=False):
            empty.absent(f"{chunk:032d}", 250)
            empty.write_chunk(f"{chunk:032d}", (0, 250), part, timing[0])
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return {"store_wall_ms_a_chunk": 1000 * spent[0] / chunks, "store_cpu_ms_a_chunk": 1000 * spent[1] / chunks}


if __name__ == "__main__":
    main()
