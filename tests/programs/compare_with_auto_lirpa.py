"""CROWN beside auto_LiRPA's: python tests/programs/compare_with_auto_lirpa.py FOLDER STEM N.

N is how many digits, a balanced subset. Its release on the package index (0.3) wants torch below 1.13; three names that
newer versions lack are put back here, in memory:

    pip install --no-deps --target FOLDER auto_LiRPA appdirs

Both bound the margins of all classes over the same boxes by one rule for the slopes, in float64 and exact arithmetic.
Ours intersects bounds of activations with intervals, auto_LiRPA's does not; where it says so, ours does not either.
Writes STEM.csv.
"""

import copy
import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.report.tables import write_csv
from model_zoo.bounds import crown
from model_zoo.bounds.crown_margins import margins_by
from model_zoo.bounds.graph import IMAGE, Network, graph
from model_zoo.bounds.interval_bounds import Box, image_box
from model_zoo.bounds.operations import Activation
from model_zoo.bounds.reach import Reach, next_reach
from model_zoo.load import load_model
from model_zoo.registry import models_of

MODELS = (("ibp", 0.05), ("convex-bound", 0.05), ("trades-b6", 0.02), ("trades-b6", 0.05), ("trades-b6", 0.2))
RULES = {"adaptive": "adaptive", "zero": "zero-lb", "chord": "same-slope"}
"""Ours to theirs."""


def auto_lirpa(folder: str) -> tuple[Any, Any, Any]:
    """Its bounded module, bounded tensor and perturbation, with what numpy 2 and torch 2 lack put back."""
    missing = types.ModuleType("numpy.lib.arraysetops")
    missing.isin = np.isin  # type: ignore[attr-defined]
    sys.modules["numpy.lib.arraysetops"] = missing
    symbolic_helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    symbolic_helper._set_opset_version = lambda *_: None
    node: Any = torch._C.Node
    node.__getitem__ = lambda self, name: getattr(self, self.kindOf(name))(name)
    sys.path.insert(0, folder)
    found = importlib.import_module("auto_LiRPA")
    perturbations = importlib.import_module("auto_LiRPA.perturbations")
    return found.BoundedModule, found.BoundedTensor, perturbations.PerturbationLpNorm


def theirs(names: tuple[Any, Any, Any], model: nn.Module, x: Tensor, image: Box, y: Tensor, rule: str) -> Tensor:
    """(N, K) lower bounds of f_y - f_k by auto_LiRPA."""
    bounded_module, bounded_tensor, perturbation = names
    bounded = bounded_module(copy.deepcopy(model), x, bound_opts={"relu": RULES[rule]})
    ball = perturbation(norm=float("inf"), x_L=image.lower, x_U=image.upper)
    one = torch.eye(10, dtype=x.dtype)
    lower, _ = bounded.compute_bounds(
        x=(bounded_tensor(x, ball),), C=one[y].unsqueeze(1) - one, method="backward", bound_upper=False
    )
    found: Tensor = lower.detach()
    return found


def by_lines_alone(network: Network, place: int, reaches: Sequence[Reach]) -> Reach:
    """What a node can put out by intervals where these are exact, at first layers; elsewhere CROWN will say."""
    found = next_reach(network, place, reaches)
    node = network.nodes[place]
    if isinstance(node.operation, Activation) or node.feeds[0] == IMAGE:
        return found
    everything = torch.full_like(found.box.lower, torch.inf)
    return replace(found, box=Box(-everything, everything))


def compared(folder: str, n: int) -> Iterator[dict[str, Any]]:
    """A row a model, epsilon and rule."""
    names = auto_lirpa(folder)
    split = balanced_subset(load("digits", "test", data_dir=Path("unused")), n, seed=0)
    x, y = split.x.double(), split.y
    for name, epsilon in MODELS:
        model = load_model(models_of("digits", Path("unused"))[name], Path("unused"), classes=10)
        network, image = replace(graph(model, tuple(x.shape[1:])), unit=0.0), image_box(x, epsilon)
        for rule in RULES:
            other = theirs(names, copy.deepcopy(model).double(), x, image, y, rule)
            ours = margins_by(network, image, y, rule)
            with patch.object(crown, "next_reach", by_lines_alone):
                alone = margins_by(network, image, y, rule)
            yield {
                "model": name,
                "epsilon": epsilon,
                "rule": rule,
                "n": n,
                "largest margin": other.abs().max().item(),
                "largest difference, without intervals": (alone - other).abs().max().item(),
                "largest difference": (ours - other).abs().max().item(),
                "ours looser by at most": (other - ours).clamp_min(0).max().item(),
            }


def main() -> None:
    torch.set_num_threads(1)
    folder, stem = sys.argv[1], Path(sys.argv[2])
    rows = []
    for row in compared(folder, int(sys.argv[3])):
        print(row, flush=True)
        rows.append(row)
        write_csv(stem.with_suffix(".csv"), pd.DataFrame(rows))


if __name__ == "__main__":
    main()
