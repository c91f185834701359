"""How long the tables of a large suite take: python tests/programs/measure_tables.py FOLDER [MODELS [IMAGES]].

Writes a store of made-up verdicts, 100 models, 12 attacks, 10,000 images, to FOLDER/results/mine, unless there
is one, then has `table` write everything that can be made of it, and prints wall clock, processor time and peak memory.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.store.chunk import chunk_ranges
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec

ROOT = Path(__file__).resolve().parents[2]
PGD = ("fgsm", "pgd-20", "pgd-40", "pgd-100", "pgd-20x10", "mi-fgsm", "cw-linf")
MADE_UP = (*PGD, "apgd-ce", "apgd-t", "fab-t", "square", "autoattack")
SUITE = "mnist"


def write_store(store: Store, models: int, images: int) -> None:
    """Models from strong to weak, attacks from weak to strong, each image with a difficulty of its own."""
    draw, cases = np.random.default_rng(0), []
    label = draw.integers(0, 10, images)
    timing = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 250, "threads": 1, "workers": 1}
    store.open()
    for model in range(models):
        spec = ModelSpec(
            f"model-{model:03d}",
            suites=(SUITE,),
            dataset=SUITE,
            architecture="small-cnn",
            defense="madry",
            checkpoint="made up",
            sha256=f"{model:064d}",
        )
        prediction = np.where(draw.random(images) < 0.98, label, (label + 1) % 10)
        difficulty = draw.random(images)
        for strength, name in enumerate(MADE_UP):
            case = EvalCase(SUITE, SUITE, "c" * 64, images, spec, spec, ATTACKS[name], ThreatModel("Linf", 0.3), 0)
            reach = 0.9 - 0.4 * model / models - 0.01 * strength + 0.01 * draw.random(images)
            robust = (prediction == label) & (difficulty < reach)
            passes = draw.integers(1, 100, images).astype(float)
            key = case_key(case)
            store.write_case(key, {"flags": []})
            for start, stop in chunk_ranges(images):
                part = slice(start, stop)
                last = robust[part] if ATTACKS[name].reads_last else None
                columns = label[part], prediction[part], robust[part], last, passes[part], passes[part]
                store.write_chunk(key, (start, stop), Verdicts(np.arange(start, stop), *columns), timing)
            cases.append(case)
    show(store, SUITE, "any", cases, [(place,) for place in range(len(cases))])


def main() -> None:
    """Write, and measure."""
    folder = Path(sys.argv[1])
    models, images = (int(word) for word in (*sys.argv[2:4], *("100", "10000")[len(sys.argv) - 2 :]))
    store = Store(folder / "results/mine/runs")
    if SUITE not in store.suites():
        write_store(store, models, images)
    started = time.perf_counter()
    words = [sys.executable, str(ROOT / "run_benchmark.py"), "table"]
    subprocess.run(words, cwd=folder, capture_output=True, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "models": models,
        "attacks": len(MADE_UP),
        "images": images,
        "wall_s": round(time.perf_counter() - started, 1),
        "processor_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_GB": round(used.ru_maxrss / 1e6, 2),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
