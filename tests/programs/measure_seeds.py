"""Our attacks beside the reference's over several seeds: python tests/programs/measure_seeds.py FOLDER STEM.

On 500 digits one image is 0.2 points, and the seed alone moves an attack by more: a single run cannot tell whether an
attack is weaker than its twin by as little. Runs both with the seeds 0 to 9 and compares the means. FOLDER keeps the
verdicts, and a run that was stopped goes on. STEM.md and STEM.csv are written whenever one more attack is done.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import ttest_ind

from attacks.registry import ATTACKS
from benchmark.data.datasets import load
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.report.tables import write_csv
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key
from benchmark.suites.grid import cases
from benchmark.suites.registry import SUITES
from benchmark.sweep.lacking import lacking_cases
from benchmark.sweep.prepare import prepare
from benchmark.sweep.sweep import sweep
from model_zoo.files.atomic import atomic_write
from model_zoo.registry import MODELS

NAMES = ("natural", "madry", "half-half", "trades-b1", "trades-b6")
TWINS = {name: f"reference-{name}" for name in ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")}
PAIRS = {**TWINS, "autoattack": "autoattack-reference"}
SEEDS = 10

LEGEND = (
    "In percent, by any iterate, all 500 test images of digits, Linf 0.2: mean and standard deviation over the seeds 0 "
    f"to {SEEDS - 1}. difference: ours less the reference's, of the means, in points: below 0 ours is the stronger; "
    "low, high: its 95% interval over the seeds by Welch's t, none where no seed changes anything."
)


def grid(split: Split, attack: str, seed: int) -> Sequence[EvalCase]:
    """An attack's cases on all models."""
    models = [spec for spec in MODELS if spec.dataset == "digits" and spec.name in NAMES]
    return cases(SUITES["digits"], models, [ATTACKS[attack]], [], split, seed=seed)


def robust_accuracies(store: Store, split: Split, attack: str) -> Mapping[str, np.ndarray]:
    """By model, in percent, a value a seed."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(SEEDS):
        for case in grid(split, attack, seed):
            verdicts = store.read(case_key(case), case.n)
            assert verdicts is not None
            found[case.model.name].append(100 * verdicts[0].robust_any.mean())
    return {name: np.array(values) for name, values in found.items()}


def compared(store: Store, split: Split, ours: str) -> pd.DataFrame:
    """A row for each model."""
    one, other = (robust_accuracies(store, split, attack) for attack in (ours, PAIRS[ours]))
    rows = []
    for model in NAMES:
        first, second = one[model], other[model]
        gap = first.mean() - second.mean()
        low = high = np.nan
        if np.ptp(first) or np.ptp(second):
            low, high = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        cell = {"model": model, "attack": ours, "against": PAIRS[ours], "seeds": SEEDS}
        accuracies = {"robust_acc": first.mean(), "robust_sd": first.std(ddof=1)}
        against = {"against_acc": second.mean(), "against_sd": second.std(ddof=1)}
        rows.append({**cell, **accuracies, **against, "difference": gap, "low": low, "high": high})
    return pd.DataFrame(rows).round(2)


def main() -> None:
    """Measure pair by pair."""
    torch.set_num_threads(1)
    folder, stem = Path(sys.argv[1]), Path(sys.argv[2])
    hardware = Hardware(torch.device("cpu"), torch.float32, 250, workers=len(os.sched_getaffinity(0)))
    split, store, tables = load("digits", "test", data_dir=Path("unused")), Store(folder), []
    for pair in PAIRS.items():
        some = [case for attack in pair for seed in range(SEEDS) for case in grid(split, attack, seed)]
        sweep(
            prepare(lacking_cases(some, store, hardware), split, store, hardware, checkpoint_dir=folder),
            store,
            hardware,
            quiet=True,
        )
        tables.append(compared(store, split, pair[0]))
        table = pd.concat(tables)
        write_csv(stem.with_name(stem.name + ".csv"), table)
        atomic_write(stem.with_name(stem.name + ".md"), f"{table.to_markdown(index=False)}\n\n{LEGEND}\n".encode())
        print(*pair, f"{len(table)} rows", flush=True)


if __name__ == "__main__":
    main()
