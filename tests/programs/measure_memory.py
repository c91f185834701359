"""Peak memory of AutoAttack beside that of one pass: python tests/programs/measure_memory.py DATA CHECKPOINTS MODEL...

Attacks 250 MNIST images with each member of AutoAttack, shortened to 8 steps and 2 restarts, beside one forward and
backward pass of the same images in a process of its own. Prints how much the resident memory rises above what it was
after loading, and the process's resident memory then, each with a C library that gives freed blocks of 128 KiB and more
back at once, so that it is what tensors hold, and with the C library as it is. For Linux.
"""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from attacks.judge import predict
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.search_model import search_model
from attacks.spec import AttackSpec, Ensemble
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.suites.grid import cases
from benchmark.suites.models import models_for
from benchmark.suites.registry import SUITES
from benchmark.sweep.prepare import load_on

IMAGES = 250
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WHAT = ("pass", "autoattack")
FREED = {"given back": {"MALLOC_MMAP_THRESHOLD_": "131072"}, "as it is": {}}
"""What becomes of freed memory, and the environment that tells glibc."""


def brief(member: AttackSpec) -> AttackSpec:
    """An attack that holds as much as the whole, and is soon over."""
    return member.with_settings(steps=8, restarts=min(2, member.restarts))


def peaks(what: str, data: Path, checkpoints: Path, model: str, precision: torch.dtype) -> tuple[float, float]:
    """MB (1e6 bytes) that the resident memory rises by, and comes to."""
    suite, spec = SUITES["mnist"], models_for("mnist", checkpoints)[model]
    images = balanced_subset(load("mnist", "test", data_dir=data, quiet=True), IMAGES, seed=0)
    hardware = Hardware(torch.device("cpu"), precision, IMAGES)
    network = load_on(hardware, spec, images, checkpoints)
    searched = search_model(network, images.x[:1], precision)
    method = ATTACKS["autoattack"].method
    assert isinstance(method, Ensemble)
    members = Ensemble([brief(member) for member in method.members])
    (case,) = cases(suite, [spec], [replace(ATTACKS["autoattack"], method=members)], [], images, seed=0)
    oracle = Oracle(searched, suite.threat, precision=precision)
    oracle.loss_and_gradient(images.x[:2], images.y[:2], "cross-entropy")  # what is loaded at first use

    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    if what == "pass":
        oracle.loss_and_gradient(images.x, images.y, "cross-entropy")
    else:
        predictions = predict(network, images.x, batch_size=IMAGES)
        evaluate_chunk([case], network, network, searched, images, predictions, hardware)
    return high_water() - before, high_water()


def high_water() -> float:
    """MB: the most resident memory since the mark was set anew."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Measure each in a process of its own."""
    if sys.argv[1] == "one":
        what, data, checkpoints, model, precision = sys.argv[2:]
        print(*peaks(what, Path(data), Path(checkpoints), model, PRECISIONS[precision]))
        return
    rows = []
    for model, precision, freed in itertools.product(sys.argv[3:], PRECISIONS, FREED):
        rises, totals = [], []
        for what in WHAT:
            words = [sys.executable, __file__, "one", what, *sys.argv[1:3], model, precision]
            printed = subprocess.check_output(words, text=True, env={**os.environ, **FREED[freed]})
            rise, total = map(float, printed.split())
            rises.append(rise)
            totals.append(total)
        cell: dict[str, object] = {"model": model, "precision": precision, "freed": freed}
        for name, found in {"rise": rises, "total": totals}.items():
            cell |= dict(zip([f"{name}_{what}" for what in WHAT], found, strict=True))
            cell[f"{name}_ratio"] = found[1] / found[0]
        rows.append(cell)
    print(pd.DataFrame(rows).round(2).to_markdown(index=False))


if __name__ == "__main__":
    main()
