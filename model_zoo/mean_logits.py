"""Several models as one to craft on: the mean of their logits."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from model_zoo.model_spec import ModelSpec

JOINED = "+"
"""Between the names of the members."""


class MeanLogits(nn.Module):
    """The mean of the members' logits: images (N, C, H, W) in [0, 1] to (N, K).

    Source: Liu et al., arXiv:1611.02770, Section 4 (probabilities); Dong et al., arXiv:1710.06081, Equation 9 (logits).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


def mean_of(specs: Sequence[ModelSpec]) -> ModelSpec:
    """The model that returns the mean logits of these, as a source of transfer attacks.

    Raises: InputError where one of them stands twice.
    """
    names = [spec.name for spec in specs]
    if len({str(spec.identity) for spec in specs}) < len(specs):
        raise InputError(
            f"--sources {JOINED.join(names)}: expected different models to take the mean of, got one twice"
        )
    if rejecting := [spec.name for spec in specs if spec.rejects]:
        raise InputError(
            f"--sources {JOINED.join(names)}: {rejecting[0]} may reject images; name models of classes alone"
        )
    first = specs[0]
    return ModelSpec(
        JOINED.join(names),
        suites=first.suites,
        dataset=first.dataset,
        architecture=JOINED.join(spec.architecture for spec in specs),
        defense=JOINED.join(spec.defense for spec in specs),
        checkpoint="",
        sha256=JOINED.join(spec.sha256 for spec in specs),
        randomized=any(spec.randomized for spec in specs),
        members=tuple(specs),
    )
