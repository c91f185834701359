"""How many verdicts the batch size changes: python tests/programs/measure_batches.py FOLDER STEM.

Attacks digits models in batches of 1, 7, 64 and 500, in float32 and in bfloat16, and counts, attack by attack, the
images whose verdict is not that of the largest batch. Draws belong to images, so that what differs is rounding. Small
batches take long, and see fewer images. FOLDER keeps the verdicts, and a run that was stopped goes on. STEM.md and
STEM.csv are written whenever one more precision and batch size is done.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from attacks.registry import ATTACKS
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.hardware import Hardware
from benchmark.report.tables import write_csv
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.grid import cases
from benchmark.suites.registry import SUITES
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.prepare import prepare
from benchmark.sweep.sweep import sweep
from model_zoo.files.atomic import atomic_write
from model_zoo.registry import MODELS

NAMES = ("natural", "madry", "trades-b6")
CHEAP = ("pgd-20", "pgd-40", "pgd-100", "cw-linf", "mi-fgsm", "apgd-ce")
DEAR = ("apgd-t", "fab-t", "square")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
IMAGES = {500: (500, 100), 64: (500, 100), 7: (200, 100), 1: (100, 20)}
"""Batch size to images of each model, under the cheap attacks and under the dear ones. The largest stands against."""

LEGEND = (
    "verdicts: images, summed over the models natural, madry and trades-b6 of the digits suite, whose verdict (any "
    "iterate) was compared with that of batches of 500; changed: how many differ, by model; robust_acc: of the "
    "compared images, in percent. A batch of 500 is a task of two chunks, of fewer images where there are fewer."
)


def grid(size: int) -> Iterator[tuple[Split, list[EvalCase]]]:
    """Images and cases of a batch size: the cheap attacks, then the dear ones."""
    split = load("digits", "test", data_dir=Path("unused"))
    models = [spec for spec in MODELS if spec.dataset == "digits" and spec.name in NAMES]
    for names, n in zip((CHEAP, DEAR), IMAGES[size], strict=True):
        part = balanced_subset(split, n, seed=0)
        yield part, cases(SUITES["digits"], models, [ATTACKS[name] for name in names], [], part, seed=0)


def measure(folder: Path, precision: str, size: int) -> None:
    """Whatever lacks of the verdicts of a precision and a batch size."""
    hardware = Hardware(torch.device("cpu"), PRECISIONS[precision], size, workers=len(os.sched_getaffinity(0)))
    store = Store(folder / f"{precision}-{size}")
    for images, some in grid(size):
        sweep(
            prepare(lacking_cases(some, store, hardware), images, store, hardware, checkpoint_dir=folder),
            store,
            hardware,
            quiet=True,
        )


def found(folder: Path, precision: str, size: int) -> Mapping[tuple[str, str], Verdicts]:
    """By attack and model, what has been measured."""
    store = Store(folder / f"{precision}-{size}")
    listed = [case for _, some in grid(size) for case in some]
    stored = {(case.attack.name, case.model.name): store.read(case_key(case), case.n) for case in listed}
    return {cell: verdicts[0] for cell, verdicts in stored.items() if verdicts is not None}


def compared(folder: Path) -> pd.DataFrame:
    """A row for each precision, batch size and attack."""
    rows = []
    for precision in PRECISIONS:
        largest = found(folder, precision, max(IMAGES))
        for size in sorted(IMAGES)[:-1]:
            measured = found(folder, precision, size)
            for attack in (*CHEAP, *DEAR):
                robust, changed = [], {}
                for model in NAMES:
                    one, other = measured.get((attack, model)), largest.get((attack, model))
                    if one is not None and other is not None:
                        against = other.robust_any[np.searchsorted(other.index, one.index)]
                        robust.append(one.robust_any)
                        changed[model] = int((one.robust_any != against).sum())
                if len(changed) == len(NAMES):
                    cell = {"precision": precision, "batch": size, "attack": attack}
                    verdicts = np.concatenate(robust)
                    counts = {"verdicts": len(verdicts), "changed": sum(changed.values())}
                    by_model = " + ".join(map(str, changed.values()))
                    rows.append({**cell, **counts, "by_model": by_model, "robust_acc": round(100 * verdicts.mean(), 2)})
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, stem: Path) -> None:
    """The table by attack, and its sums, as Markdown; the table as CSV."""
    sums = table.groupby(["precision", "batch"], sort=False)[["verdicts", "changed"]].sum().reset_index()
    write_csv(stem.with_name(stem.name + ".csv"), table)
    text = "\n\n".join(frame.to_markdown(index=False) for frame in (sums, table))
    atomic_write(stem.with_name(stem.name + ".md"), f"{text}\n\n{LEGEND}\n".encode())


def main() -> None:
    """Measure, the large batches first."""
    torch.set_num_threads(1)
    folder, stem = Path(sys.argv[1]), Path(sys.argv[2])
    for size in IMAGES:
        for precision in PRECISIONS:
            measure(folder, precision, size)
            table = compared(folder)
            if len(table):
                write(table, stem)
            print(precision, size, f"{len(table)} rows", flush=True)


if __name__ == "__main__":
    main()
