"""What larger tasks save: python tests/programs/measure_tasks.py STEM [DATA_DIR].

Attacks the same images in tasks and batches of 250 and of all of them, in turn, and compares the processor time, image
by image the verdicts, and the passes. STEM.md and STEM.csv are written whenever one more row is done.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from attacks.judge import predict
from attacks.registry import ATTACKS
from attacks.spec import CHUNK_SIZE
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset, take
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware, keep_freed_memory
from benchmark.evaluation.search_copy import search_copy
from benchmark.report.tables import write_csv
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase
from benchmark.suites.registry import SUITES
from benchmark.sweep.prepare import load_on
from model_zoo.files.atomic import atomic_write
from model_zoo.registry import models_of

IMAGES = {"digits": 500, "mnist": 1000}
ROUNDS = {"pgd-20": 7, "autoattack": 3, "autoattack-fast": 2}
"""By attack, how often each is measured."""
CONTESTS = (
    *((suite, model, "pgd-20") for suite in IMAGES for model in ("natural", "madry")),
    ("digits", "natural", "autoattack"),
    ("digits", "madry", "autoattack"),
    ("mnist", "natural", "autoattack"),
    ("mnist", "madry", "autoattack-fast"),  # 912 robust images: autoattack takes too long
)
LEGEND = (
    "seconds: of the processor, one thread, medians; time: that of one task of all images, in batches of as many, over "
    "that of tasks of 250, medians of pairs (the least to the greatest); changed: images whose verdict (any or last "
    "iterate) differs; passes: forward and backward, the sum's relative change."
)


def main() -> None:
    """Measure, the short attacks first."""
    torch.set_num_threads(1)
    keep_freed_memory()
    stem, data = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "data")
    rows = []
    for suite, model, attack in CONTESTS:
        images = balanced_subset(load(suite, "test", data_dir=data), IMAGES[suite], seed=0)
        rows.append(row(suite, model, attack, images, ROUNDS[attack]))
        table = pd.DataFrame(rows)
        write_csv(stem.with_name(stem.name + ".csv"), table)
        atomic_write(stem.with_name(stem.name + ".md"), f"{table.to_markdown(index=False)}\n\n{LEGEND}\n".encode())
        print(rows[-1], flush=True)


def row(suite: str, model: str, attack: str, images: Split, rounds: int) -> dict[str, object]:
    """A model under an attack, in small tasks and in one."""
    spec, n = models_of(suite, Path("checkpoints"))[model], len(images)
    case = EvalCase(suite, suite, images.digest, n, spec, spec, ATTACKS[attack], SUITES[suite].threat, 0)
    sizes, hardware = (CHUNK_SIZE, n), Hardware(torch.device("cpu"), torch.float32, n)
    network = load_on(hardware, spec, images, Path("checkpoints"))
    searched = search_copy(spec, network, images, hardware)
    prediction = predict(network, images.x, batch_size=CHUNK_SIZE)

    def run(size: int) -> tuple[float, list[Verdicts]]:
        started = time.process_time()
        verdicts = []
        for start, stop in pairwise([*range(0, n, size), n]):
            part = take(images, np.arange(start, stop))
            on = part, prediction[start:stop], replace(hardware, batch_size=size)
            verdicts += evaluate_chunk([case], network, network, searched, *on)
        return time.process_time() - started, verdicts

    run(n)
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    found: dict[int, list[Verdicts]] = {}
    for number in range(rounds):
        for size in sizes if number % 2 else sizes[::-1]:
            seconds, found[size] = run(size)
            taken[size].append(seconds)
    ratios = [large / small for small, large in zip(*taken.values(), strict=True)]
    small, large = (joined(found[size]) for size in sizes)
    return {
        "suite": suite,
        "model": model,
        "attack": attack,
        "n": n,
        "rounds": rounds,
        "seconds at 250": round(statistics.median(taken[CHUNK_SIZE]), 2),
        "seconds at n": round(statistics.median(taken[n]), 2),
        "time": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        "changed": int(
            ((small["robust_any"] != large["robust_any"]) | (small["robust_last"] != large["robust_last"])).sum()
        ),
        "passes": f"{large['passes'].sum() / small['passes'].sum() - 1:+.4f}",
        "robust_acc": round(100 * float(small["robust_any"].mean()), 2),
    }


def joined(parts: Sequence[Verdicts]) -> dict[str, np.ndarray]:
    """The columns that are compared, over all tasks; an attack without a last iterate has the other reading twice."""
    last = [part.robust_any if part.robust_last is None else part.robust_last for part in parts]
    return {
        "robust_any": np.concatenate([part.robust_any for part in parts]),
        "robust_last": np.concatenate(last),
        "passes": np.concatenate([part.forwards + part.backwards for part in parts]),
    }


if __name__ == "__main__":
    main()
