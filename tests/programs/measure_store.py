"""How a store of any size behaves: python tests/programs/measure_store.py FOLDER MODELS [ATTACKS [IMAGES]].

Writes a store of made-up verdicts under FOLDER/results/mine and prints its size and how long its commands take. Every
chunk is a file of its own that names its case; the verdicts of one model's cases stand in for those of all models.
Nothing is fsynced, as a sweep does.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.store.audit import incomplete_cases
from benchmark.store.chunk import checksum, chunk_ranges, pack, stem
from benchmark.store.shown import Selection, Shown, ShownCase, SuiteRecord
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import key_of

ROOT = Path(__file__).resolve().parents[2]
MADE_UP = ShownCase(
    key="",
    rank=(0,),
    suite="made-up",
    dataset="digits",
    model="",
    defense="",
    architecture="",
    checkpoint_sha256="",
    networks={},
    norm="Linf",
    epsilon=0.1,
    attack="",
    source_model="",
    n=0,
    images="made up",
    seed=0,
    version=1,
    schedule="",
)


def made_up(start: int, stop: int, draw: np.random.Generator) -> Verdicts:
    """Verdicts as an attack of 100 steps leaves them: some images wrong when clean, some broken early."""
    index = np.arange(start, stop)
    label = index % 10
    prediction = np.where(draw.random(len(index)) < 0.9, label, (label + 1) % 10)
    robust = (draw.random(len(index)) < 0.5) & (prediction == label)
    passes = np.where(robust, 101, draw.integers(1, 100, len(index))) * (prediction == label).astype(float)
    return Verdicts(index, label, prediction, robust, robust, passes, np.maximum(passes - 1, 0))


def write_store(store: Store, models: int, attacks: int, images: int) -> None:
    """A suite of so many models and attacks; one chunk in 1,000 lacks."""
    draw, shown, stand_in = np.random.default_rng(0), [], "f" * 32
    ranges = chunk_ranges(images)
    packed = [
        [pack(stand_in, chunk, made_up(*chunk, draw), {"seconds": 1.0})[1] for chunk in ranges] for _ in range(attacks)
    ]
    store.open()
    for model in range(models):
        for attack in range(attacks):
            identity = {"model": model, "attack": attack}
            key = key_of(identity)
            store.write_case(key, {"identity": identity, "flags": []})
            for place, chunk in enumerate(ranges):
                if (model * attacks + attack + place) % 1000 != 999:
                    content = packed[attack][place].replace(stand_in.encode(), key.encode())
                    name = f"{stem(chunk)}.{checksum(content)}.parquet"
                    (store.root / "cases" / key / name).write_bytes(content)
            names = f"model-{model:04d}", f"attack-{attack:02d}"
            rank = model, 0, attack, 0
            shown.append(replace(MADE_UP, model=names[0], attack=names[1], key=key, n=images, rank=rank))
    selection = Selection(MADE_UP.images, MADE_UP.norm, MADE_UP.epsilon, MADE_UP.seed)
    store.write_suite("made-up", SuiteRecord(selection, {selection: Shown("any", shown)}))


def main() -> None:
    """Write, and measure."""
    folder, models = Path(sys.argv[1]), int(sys.argv[2])
    attacks, images = (int(word) for word in (*sys.argv[3:5], *("12", "10000")[len(sys.argv) - 3 :]))
    setattr(os, "fsync", lambda _: None)  # noqa: B010
    store = Store(folder / "results/mine/runs")
    figures: dict[str, float] = {"models": models, "attacks": attacks, "images": images}
    started = time.perf_counter()
    write_store(store, models, attacks, images)
    figures["write_s"] = round(time.perf_counter() - started, 1)
    files = [path.stat() for path in store.root.rglob("*") if path.is_file()]
    figures |= {
        "files": len(files),
        "bytes": sum(f.st_size for f in files),
        "on_disk": 512 * sum(f.st_blocks for f in files),
    }
    for turn in ("first", "second"):
        started = time.perf_counter()
        figures[f"incomplete_{turn}"] = len(list(incomplete_cases(store)))
        figures[f"list_missing_s_{turn}"] = round(time.perf_counter() - started, 2)
    for command in ("missing", "verify"):
        words = [sys.executable, str(ROOT / "run_benchmark.py"), "store", command, "--quiet"]
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures[f"command_{command}_s"] = round(time.perf_counter() - started, 2)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        figures[f"command_{command}_cpu_s"] = round(spent, 2)
        print(said.splitlines()[-1])
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
