"""Images of two of MNIST's digits."""

import torch

from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.studies.study import Inputs


def two_digits(digits: tuple[int, int], part: str, count: int, inputs: Inputs) -> Split:
    """A balanced subset of both, with the labels that MNIST gives them; all there are where they are fewer."""
    images = load("mnist", part, data_dir=inputs.data_dir, mirror=inputs.mirror_dir, quiet=inputs.quiet)
    rows = torch.isin(images.y, torch.tensor(digits)).nonzero().flatten()
    chosen = Split("mnist", part, images.x[rows], images.y[rows], images.index[rows], images.classes)
    return balanced_subset(chosen, min(count, len(chosen)), seed=inputs.seed)
