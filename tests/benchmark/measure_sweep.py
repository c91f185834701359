"""What store and executors cost beside the attacks: python tests/benchmark/measure_sweep.py FOLDER [EXECUTOR ...].

Sweeps digits models in a fresh folder for each executor (local-1, local-2, ray-2), and prints the wall-clock time, the
time inside of attacks summed over the workers, and the processor time of the store's part of a chunk.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmark.case import case_key
from benchmark.datasets import load
from benchmark.hardware import Hardware
from benchmark.locks import claim
from benchmark.store import Store
from benchmark.suites import SUITES, cases
from benchmark.sweep import prepare, sweep
from model_zoo.registry import MODELS

NAMES = ("natural", "madry", "trades-b6", "fat")
ATTACKS = ("pgd-20", "pgd-40", "pgd-100", "cw-linf", "mi-fgsm", "autoattack-fast")
CPU = Hardware(torch.device("cpu"), torch.float32, 250)


def main() -> None:
    """Sweep, and measure."""
    torch.set_num_threads(1)
    folder, executors = Path(sys.argv[1]), sys.argv[2:] or ["local-1", "local-2", "ray-2"]
    split = load("digits", "test", data_dir=folder)
    models = [spec for spec in MODELS if spec.dataset == "digits" and spec.name in NAMES]
    attacks = [attack for attack in SUITES["digits"].attacks if attack.name in ATTACKS]
    grid = cases(SUITES["digits"], models, attacks, [], split, seed=0)
    for name in executors:
        executor, workers = name.split("-")
        hardware = replace(CPU, executor=executor, workers=int(workers))
        store = Store(folder / name)
        work = prepare(grid, split, store, hardware, checkpoint_dir=folder)
        started = time.perf_counter()
        sweep(work, store, hardware, quiet=True)
        wall = time.perf_counter() - started
        stored = [(case, store.read(case_key(case), case.n)) for case in grid]
        attacking = sum(timing["seconds"] for _, found in stored if found is not None for timing in found[1])
        print(json.dumps({"executor": name, "wall_s": round(wall, 2), "attack_s": round(attacking, 2)}), flush=True)
    print(json.dumps(store_cost(Store(folder / executors[0]), Store(folder / "again"), case_key(grid[0]))), flush=True)


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
