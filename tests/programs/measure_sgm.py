"""Transfer by PGD, MI-FGSM and the skip gradient method: measure_sgm.py FOLDER DATA STEM SOURCE=N ...

Each attack is crafted once on N images of CIFAR-10, on an undefended residual network, and shown to seven others, its
last iterate alone. FOLDER keeps which images were misclassified, and a run that was stopped goes on. Writes STEM.csv (a
row a source, attack and target), STEM-tests.csv (paired tests of two attacks) and STEM.md.
"""

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.judge import judge, predict
from attacks.loop import run_steps
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.skip_gradient import skipping
from attacks.spec import AttackSpec, Recurrence
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.report.tables import write_csv
from benchmark.stats.shares import mcnemar, percent
from model_zoo.files.atomic import atomic_write
from model_zoo.load import load_model
from model_zoo.registry import model_spec

SUITE, SEED, BATCH = "cifar10", 0, 50
EPSILON = 16 / 255
"""The paper's."""
TARGETS = ("natural-croce2020", "natural", "mixed", "fat", "fast-resnet-18-w16", "madry", "trades-b6", "gairat")
PGD = replace(ATTACKS["sgm"], name="pgd-10", skip_gradient=1.0)
"""SGM with nothing skipped: ten steps of epsilon / 8 from the image itself."""
CRAFTED = (PGD, ATTACKS["mi-fgsm"], ATTACKS["sgm"])
PAIRS = (("mi-fgsm", "pgd-10"), ("sgm", "pgd-10"), ("sgm", "mi-fgsm"))
POOLED = "all targets"
Bools = NDArray[np.bool_]

LEGEND = (
    "CIFAR-10, Linf 16/255, ten steps; balanced test images, seed 0. success: of the images that the target classifies "
    "correctly when clean (n), the share in percent that it misclassifies once they are changed on the source, by the "
    "attack's last iterate. difference: of the successes of two attacks, in points, over all targets; more, fewer: "
    "images that the first breaks on more targets, and on fewer, than the second; p: of an exact sign test, which with "
    "one target is McNemar's."
)


def main() -> None:
    folder, data, stem = (Path(argument) for argument in sys.argv[1:4])
    torch.set_num_threads(1)
    test = load(SUITE, "test", data_dir=data, quiet=True)
    rows, tests = [], []
    for source, count in (run.split("=") for run in sys.argv[4:]):
        images = balanced_subset(test, int(count), seed=SEED)
        broken = {spec.name: shown(folder, spec, source, images) for spec in CRAFTED}
        right = {name: known for name, known in clean(folder, images).items() if name != source}
        for attack, by_target in broken.items():
            for target, known in right.items():
                share = percent(by_target[target][known])
                rows.append(
                    {"source": source, "attack": attack, "target": target, "n": int(known.sum()), "success": share}
                )
        for first, second in PAIRS:
            both = {name: (broken[first][name] & known, broken[second][name] & known) for name, known in right.items()}
            counts = {name: (one.astype(int), other.astype(int)) for name, (one, other) in both.items()}
            counts[POOLED] = tuple(np.sum(side, axis=0) for side in zip(*counts.values(), strict=True))
            shares = {**{name: known.sum() for name, known in right.items()}, POOLED: np.sum(list(right.values()))}
            for target, (one, other) in counts.items():
                more, fewer = int((one > other).sum()), int((one < other).sum())
                about = {"source": source, "first": first, "second": second, "target": target}
                found = {"more": more, "fewer": fewer, "p": float(f"{mcnemar(more, fewer):.3g}")}
                tests.append({**about, "difference": 100 * (one - other).sum() / shares[target], **found})
        write(pd.DataFrame(rows), pd.DataFrame(tests), stem)


def shown(folder: Path, spec: AttackSpec, source: str, images: Split) -> dict[str, Bools]:
    """By target, (N,) bool: the images that it misclassifies once they are changed on the source."""
    path = folder / f"{spec.name}-{source}-{round(255 * EPSILON)}-{len(images)}.npz"
    if not path.exists():
        print(f"{spec.name} on {source}", flush=True)
        threat = ThreatModel("Linf", EPSILON)
        x_adv = crafted(spec, network(source), threat, images)
        found = {
            name: ~judge(network(name), images.x, images.y, x_adv, threat, batch_size=BATCH).numpy()
            for name in TARGETS
            if name != source
        }
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **found)
    with np.load(path) as kept:
        return dict(kept)


def crafted(spec: AttackSpec, model: nn.Module, threat: ThreatModel, images: Split) -> Tensor:
    """(N, C, H, W) the last iterates of an attack on a model."""
    assert isinstance(spec.method, Recurrence)
    parts = []
    with skipping(model, spec.skip_gradient) if spec.skip_gradient < 1 else nullcontext():
        for x, y, index in zip(*(whole.split(BATCH) for whole in (images.x, images.y, images.index)), strict=True):
            oracle, draws = Oracle(model, threat), Draws.start(SEED, index)
            params = {"init_params": spec.init_params, "step_params": spec.step_params}
            parts.append(run_steps(spec.method, oracle, x, y, draws, steps=spec.steps, **params))
    return torch.cat(parts)


def network(name: str) -> nn.Module:
    return load_model(model_spec(name, SUITE, Path()), Path(), classes=10)


def clean(folder: Path, images: Split) -> dict[str, Bools]:
    """By target, (N,) bool: the images that it classifies correctly."""
    path = folder / f"clean-{len(images)}.npz"
    if not path.exists():
        right = {name: (predict(network(name), images.x, batch_size=BATCH) == images.y).numpy() for name in TARGETS}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **right)
    with np.load(path) as kept:
        return dict(kept)


def write(rows: pd.DataFrame, tests: pd.DataFrame, stem: Path) -> None:
    write_csv(Path(f"{stem}.csv"), rows.round(2))
    write_csv(Path(f"{stem}-tests.csv"), tests.round({"difference": 2}))
    parts = []
    for source, own in rows.groupby("source", sort=False):
        grid = own.pivot(index="target", columns="attack", values="success")
        grid = grid.loc[own["target"].unique(), [spec.name for spec in CRAFTED]]
        grid.insert(0, "n", own.groupby("target", sort=False)["n"].first())
        same = tests[(tests["source"] == source) & (tests["target"] == POOLED)]
        pooled = same.drop(columns=["source", "target"])
        parts += [
            f"## Crafted on {source}",
            grid.round(1).reset_index().to_markdown(index=False),
            pooled.to_markdown(index=False, floatfmt=".3g"),
        ]
    atomic_write(Path(f"{stem}.md"), ("\n\n".join([*parts, LEGEND]) + "\n").encode())


if __name__ == "__main__":
    main()
