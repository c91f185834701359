"""How tight bounds are, and what smoothing certifies: python tests/programs/measure_certificates.py PART STEM N.

N is how many test images, a balanced subset. PART is `tightness` (every bound beside the best of CROWN's), `smoothing`
(whether attacks on the smoothed classifier break what is certified, for some noises), `smoothadv` (PGD on the mean loss
of the draws, and on the loss of their mean probabilities) or `complete` (what CROWN and branch and bound decide of the
most robust models, and whether AutoAttack breaks what a witness does; of a model and radius of which IN_VAIN images in
a row stay open, no more are tried). CHECKPOINTS names the folder of models `smoothing-SIGMA` that were trained for it,
SECONDS_EACH the time limit of an image, and EPSILONS the radii of `complete`; SUITE, of `smoothing` alone, digits or
mnist, whose data are in DATA. Writes STEM.csv.
"""

import copy
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from attacks import attack
from attacks.threat_model import ThreatModel
from benchmark.certify.methods import METHODS
from benchmark.certify.proofs import Asked, Subject
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.report.tables import write_csv
from benchmark.stats.shares import mcnemar
from benchmark.store.certificates import BROKEN, CERTIFIED, UNKNOWN
from model_zoo.bounds import convex, smoothing
from model_zoo.bounds.crown import RULES
from model_zoo.bounds.crown_margins import best_margins, interval_margins, margins_by
from model_zoo.bounds.graph import graph
from model_zoo.bounds.interval_bounds import Box, image_box
from model_zoo.bounds.reach import interval_reaches
from model_zoo.load import load_model
from model_zoo.registry import models_of
from model_zoo.smoothed import smoothed

TIGHTNESS = (("ibp", 0.2), ("convex-bound", 0.2), ("trades-b6", 0.05))
SIGMAS = {"digits": (0.12, 0.25, 0.5), "mnist": (0.25, 0.5, 1.0)}
RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
SAMPLES, ALPHA = 1000, 0.001
BATCH = 25


SUITE = os.environ.get("SUITE", "digits")


def model_of(name: str, checkpoint_dir: Path) -> nn.Module:
    return load_model(models_of(SUITE, checkpoint_dir)[name], checkpoint_dir, classes=10)


def least(margins: Tensor, y: Tensor) -> Tensor:
    """(N,) the least margin over the other classes."""
    return margins.scatter(1, y.unsqueeze(1), torch.inf).amin(1)


def bounds_of(
    model: nn.Module, epsilon: float, shape: tuple[int, ...]
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """By name, what gives (N, K) lower bounds of all margins of images and labels."""
    network, twin = graph(model, shape), copy.deepcopy(model).double()
    exact = replace(network, unit=0.0)

    def ball(x: Tensor) -> Box:
        return image_box(x, epsilon)

    def of_rule(rule: str) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: margins_by(exact, ball(x), y, rule)

    return {
        "intervals": lambda x, y: interval_margins(exact, y, interval_reaches(exact, ball(x))),
        "convex": lambda x, y: convex.margins(twin, x, y, epsilon),
        **{f"crown, {rule} alone": of_rule(rule) for rule in RULES},
        "crown, best": lambda x, y: best_margins(exact, ball(x), y)[0],
        "crown, best, of a float32 pass": lambda x, y: best_margins(network, ball(x), y)[0],
    }


def tightness(split: Split, checkpoint_dir: Path) -> Iterator[dict[str, Any]]:
    """A row a model and bound: images certified, and images on which it is looser, or tighter, than the best."""
    for name, epsilon in TIGHTNESS:
        bounds = bounds_of(model_of(name, checkpoint_dir), epsilon, tuple(split.x.shape[1:]))
        found: dict[str, list[Tensor]] = {bound: [] for bound in bounds}
        seconds = dict.fromkeys(bounds, 0.0)
        for x, y in zip(split.x.double().split(BATCH), split.y.split(BATCH), strict=True):
            for bound, compute in bounds.items():
                started = time.process_time()
                with torch.no_grad():
                    found[bound].append(least(compute(x, y), y))
                seconds[bound] += time.process_time() - started
        margins = {bound: torch.cat(parts) for bound, parts in found.items()}
        best = margins["crown, best"]
        for bound, margin in margins.items():
            yield {
                "model": name,
                "epsilon": epsilon,
                "bound": bound,
                "n": len(margin),
                "certified": 100 * (margin > 0).double().mean().item(),
                "tighter than the best": int((margin > best + 1e-9).sum()),
                "looser than convex": int((margin < margins["convex"] - 1e-9).sum()),
                "looser than intervals": int((margin < margins["intervals"] - 1e-9).sum()),
                "mean distance to the best": (best - margin).mean().item(),
                "CPU seconds": round(seconds[bound], 1),
            }


def contradictions(split: Split, checkpoint_dir: Path) -> Iterator[dict[str, Any]]:
    """A row a noise: certified accuracy by radius, and what an attack on the smoothed classifier breaks of it."""
    x, y, index = split.x, split.y, split.index
    for sigma in SIGMAS[SUITE]:
        spec = models_of(SUITE, checkpoint_dir)[f"smoothing-{sigma}"]
        base = load_model(spec, checkpoint_dir, classes=10)
        held = smoothing.certify(base, x, index, sigma=sigma, estimation=SAMPLES, alpha=ALPHA)
        row: dict[str, Any] = {"suite": SUITE, "sigma": sigma, "n": len(y), "samples": SAMPLES}
        row["abstained"] = int((held.prediction == smoothing.ABSTAIN).sum())
        for radius in RADII:
            row[f"certified at {radius:g}"] = 100 * held.holds(y, radius).double().mean().item()
        noisy = load_model(smoothed(spec, f"noise-{sigma:g}"), checkpoint_dir, classes=10)
        epsilon = 2 * sigma
        found = attack(noisy, x, y, "pgd-20", epsilon=epsilon, norm="L2", index=index, eot=20)
        row["robust under L2 2 sigma"] = found.robust_acc
        distance = (found.x_adv - x).flatten(1).norm(dim=1).double()
        inside = (held.prediction == y) & (held.radius > distance + 1e-5)
        classes = smoothing.predict(base, found.x_adv, index, sigma=sigma, samples=SAMPLES, alpha=ALPHA, seed=1)
        row["held against"] = int(inside.sum())
        row["conflicts"] = int((inside & (classes != y) & (classes != smoothing.ABSTAIN)).sum())
        pushed = x + (found.x_adv - x) * (0.999 * held.radius / distance.clamp_min(1e-9)).float().view(-1, 1, 1, 1)
        near = smoothing.predict(base, pushed, index, sigma=sigma, samples=SAMPLES, alpha=ALPHA, seed=2)
        moved = (held.prediction == y) & (distance > 0)
        row["held against, at the radius"] = int(moved.sum())
        row["conflicts, at the radius"] = int((moved & (near != y) & (near != smoothing.ABSTAIN)).sum())
        tests = row["held against"] + row["held against, at the radius"]
        conflicts = row["conflicts"] + row["conflicts, at the radius"]
        row["p of 2 alpha"] = binomtest(conflicts, max(tests, 1), 2 * ALPHA, alternative="greater").pvalue
        yield row


LOSSES = ("cross-entropy", "probability")
PASSES = (4, 20)
EPSILON = 0.5
JUDGED_BY = 100


def losses(split: Split, checkpoint_dir: Path) -> Iterator[dict[str, Any]]:
    """A row a number of draws: what PGD-20 leaves of a smoothed classifier by either loss."""
    spec = smoothed(models_of("digits", checkpoint_dir)["smoothing-0.25"], "noise-0.25")
    noisy = load_model(spec, checkpoint_dir, classes=10)
    for eot in PASSES:
        settings: dict[str, Any] = {"epsilon": EPSILON, "norm": "L2", "index": split.index, "eot": eot}
        first, second = (
            attack(noisy, split.x, split.y, "pgd-20", **settings, loss=loss, judge_draws=JUDGED_BY).robust
            for loss in LOSSES
        )
        alone = [int((first & ~second).sum()), int((second & ~first).sum())]
        yield {
            "epsilon": EPSILON,
            "draws": eot,
            "n": len(split),
            **{loss: 100 * held.double().mean().item() for loss, held in zip(LOSSES, (first, second), strict=True)},
            "broken by probability alone": alone[0],
            "broken by cross-entropy alone": alone[1],
            "p": mcnemar(*alone),
        }


ROBUST = ("ibp", "gair-rst", "fat-trades-b6", "rst", "trades-b6")
RADII_OF_BRANCHES = "0.02,0.05,0.1,0.2"
IN_VAIN = int(os.environ.get("IN_VAIN", "3"))
"""So many images in a row that stay open, and the others of that model and radius are not tried."""


def complete(split: Split, checkpoint_dir: Path) -> Iterator[dict[str, Any]]:
    """A row a model and radius: how the images that are right when clean are divided, by method."""
    settings = {"seconds": float(os.environ.get("SECONDS_EACH", "30"))}
    for epsilon in map(float, os.environ.get("EPSILONS", RADII_OF_BRANCHES).split(",")):
        for name in ROBUST:
            model = model_of(name, checkpoint_dir)
            asked = Asked(split.x, split.y, split.index, ThreatModel("Linf", epsilon), 0)
            asked = asked.of((model(split.x).argmax(1) == split.y).nonzero().squeeze(1))
            subject = Subject(model, tuple(split.x.shape[1:]), len(split))
            started = time.process_time()
            state = METHODS["crown"].prove(subject, asked, {"steps": 20.0}).state
            row: dict[str, Any] = {"model": name, "epsilon": epsilon, "n": len(split), "clean": len(asked.y)}
            row |= {"certified by crown": int((state == CERTIFIED).sum()), "certified by bab": 0}
            broken, tried, in_vain = [], 0, 0
            shown = attack(model, asked.x, asked.y, "pgd-100", epsilon=epsilon, index=asked.index, precision="fp32")
            for place in (state == UNKNOWN).nonzero():
                if shown.robust[place] and in_vain >= IN_VAIN:
                    continue
                (found,) = METHODS["bab"].prove(subject, asked.of(place), settings).state.tolist()
                state[place] = found
                tried += 1
                in_vain = in_vain + 1 if found == UNKNOWN else 0
                row["certified by bab"] += found == CERTIFIED
                broken += [int(place)] if found == BROKEN else []
            row |= {"witness": len(broken), "open": int((state == UNKNOWN).sum()), "given to bab": tried}
            row["open images"] = " ".join(map(str, asked.index[state == UNKNOWN].tolist()))
            row |= {"seconds": round(time.process_time() - started, 1), "AutoAttack leaves standing": ""}
            if broken:
                part = asked.of(torch.tensor(broken))
                left = attack(model, part.x, part.y, "autoattack", epsilon=epsilon, index=part.index).robust
                row["AutoAttack leaves standing"] = " ".join(map(str, part.index[left].tolist()))
            yield row


def main() -> None:
    torch.set_num_threads(1)
    part, stem = sys.argv[1], Path(sys.argv[2])
    checkpoint_dir = Path(os.environ.get("CHECKPOINTS", "checkpoints"))
    split = balanced_subset(
        load(SUITE, "test", data_dir=Path(os.environ.get("DATA", "data"))), int(sys.argv[3]), seed=0
    )
    rows = []
    if SUITE != "digits" and part != "smoothing":
        raise SystemExit(f"{part} is of digits, got SUITE={SUITE}")
    parts = {"tightness": tightness, "smoothing": contradictions, "smoothadv": losses, "complete": complete}
    for row in parts[part](split, checkpoint_dir):
        print(row, flush=True)
        rows.append(row)
        write_csv(stem.with_suffix(".csv"), pd.DataFrame(rows).round(4))


if __name__ == "__main__":
    main()
