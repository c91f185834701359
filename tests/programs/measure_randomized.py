"""Ours beside the reference's rand on three randomised models: python tests/programs/measure_randomized.py STEM [N].

Both attack the same N images (100), and both are judged by expectation. "as it reports" is what the reference says of
itself, by single passes. STEM.md and STEM.csv are written at the end.
"""

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pyautoattack import AutoAttack
from torch import Tensor, nn

from attacks.oracle import CountingClassifier
from attacks.pyautoattack_adapter import autoattack
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, ThirdParty
from attacks.threat_model import ThreatModel
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.report.tables import write_csv
from benchmark.stats.shares import percent, wilson
from benchmark.suites.case import EvalCase, with_pass_counts
from model_zoo.files.atomic import atomic_write
from model_zoo.load import load_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import model_spec

NOWHERE = Path("no checkpoints of the user's")
CPU = Hardware(torch.device("cpu"), torch.float32, 250)
SPEC = ModelSpec(
    "randomised",
    suites=(),
    dataset="digits",
    architecture="",
    defense="",
    checkpoint="",
    sha256="0" * 64,
    randomized=True,
)
THREAT = ThreatModel("Linf", 0.2)


def best_by_loss(
    classifier: CountingClassifier, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, member: str
) -> Tensor:
    """The points of largest averaged loss that the reference's APGD finds: what it returns else are points that one
    noisy query had wrong, which by chance are early ones."""
    with contextlib.redirect_stdout(io.StringIO()):
        options = {"norm": threat.norm, "eps": threat.epsilon, "seed": seed, "version": "rand", "device": "cpu"}
        attack = AutoAttack(classifier, **options).apgd
        attack.loss = member
        found: Tensor = attack.perturb(x.clone(), y, best_loss=True)
    return threat.project(found.detach(), x)


EXAMPLES = {
    "rand": AttackSpec(
        "rand", algorithm="rand", method=ThirdParty(autoattack, "pyautoattack"), params={"version": "rand"}
    )
}
BEST = {
    loss: AttackSpec(loss, algorithm=loss, method=ThirdParty(best_by_loss, "pyautoattack"), params={"member": loss})
    for loss in ("ce", "dlr")
}
ATTACKERS = {"ours": {"rand": ATTACKS["autoattack-rand"]}, "reference": BEST, "its examples": EXAMPLES}
LEGEND = (
    "In percent, with 95% Wilson intervals; digits, Linf 0.2. ours: autoattack-rand; reference: pyautoattack's "
    "version rand, the points of largest averaged loss of both its members; its examples: what it returns, points that "
    "one pass had wrong; all three judged by the class of the mean probabilities of 20 passes. As it reports: correct "
    "in one clean pass, and no example found."
)


class Noise(nn.Module):
    """A network on images with Gaussian noise."""

    def __init__(self, network: nn.Module, sigma: float) -> None:
        super().__init__()
        self.network, self.sigma = network, sigma

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x + self.sigma * torch.randn_like(x))
        return logits


class Resized(nn.Module):
    """A network on images that are scaled by up to 10% and shifted by up to a pixel, each at random."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = 0.9 + 0.2 * torch.rand(len(x), 1, 1), 0.5 * torch.rand(len(x), 2, 1) - 0.25
        moved = F.affine_grid(torch.cat([scale * torch.eye(2), shift], 2), list(x.shape), align_corners=False)
        logits: Tensor = self.network(F.grid_sample(x, moved, align_corners=False))
        return logits


def models() -> Mapping[str, nn.Module]:
    """By what they are."""
    madry, trades = (
        load_model(model_spec(name, "digits", NOWHERE), NOWHERE, classes=10) for name in ("madry", "trades-b6")
    )
    found = {
        "madry + N(0, 0.2^2)": Noise(madry, 0.2),
        "trades-b6 + N(0, 0.1^2)": Noise(trades, 0.1),
        "madry, random resize and shift": Resized(madry),
    }
    return {name: model.eval().requires_grad_(False) for name, model in found.items()}


def measured(name: str, model: nn.Module, split: Split) -> dict[str, object]:
    """A row of the table."""
    row: dict[str, object] = {"model": name, "n": len(split)}
    for who, attacks in ATTACKERS.items():
        robust = np.ones(len(split), np.bool_)
        for attack in attacks.values():
            case = with_pass_counts(EvalCase("digits", "digits", "", len(split), SPEC, SPEC, attack, THREAT, 0))
            verdicts = evaluate_chunk([case], model, model, model, split, split.y, CPU)[0]
            robust &= verdicts.robust_any
        row["clean"] = percent(verdicts.correct)
        row |= _share(who, int(robust.sum()), len(split))
        if who == "ours":
            assert verdicts.robust_single is not None
            row["ours, single draw"] = percent(verdicts.robust_single)
    torch.manual_seed(1)
    with torch.no_grad():
        correct = model(split.x).argmax(1) == split.y
    with contextlib.redirect_stdout(io.StringIO()):
        options = {"norm": THREAT.norm, "eps": THREAT.epsilon, "seed": 0, "version": "rand", "device": "cpu"}
        ensemble = AutoAttack(CountingClassifier(model), **options)
        found = ensemble.run_standard_evaluation(split.x, split.y, batch_size=len(split))[0]
    untouched = ~(found != split.x).flatten(1).any(1)
    return row | _share("as it reports", int((correct & untouched).sum()), len(split))


def _share(name: str, count: int, n: int) -> dict[str, object]:
    low, high = wilson(count, n)
    return {name: 100 * count / n, f"{name} low": low, f"{name} high": high}


def main() -> None:
    stem, n = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    torch.set_num_threads(1)
    split = balanced_subset(load("digits", "test", data_dir=Path()), n, seed=0)
    table = pd.DataFrame([measured(name, model, split) for name, model in models().items()])
    text = f"{table.to_markdown(index=False, floatfmt='.1f')}\n\n{LEGEND}\n"
    print(text)
    atomic_write(stem.with_suffix(".md"), text.encode())
    write_csv(stem.with_suffix(".csv"), table.round(4))


if __name__ == "__main__":
    main()
