"""Generators that a model holds, wherever: seeded by torch's, they make it as repeatable as torch's own do."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from attacks.models.reach import reachable

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def own_generators(model: nn.Module) -> Iterator[Any]:
    """The generators that a model reaches."""
    return (value for value in reachable(model) if isinstance(value, KINDS))


def seed_own_generators(model: nn.Module) -> None:
    """Seed each by a draw from torch's global generator on the CPU."""
    for generator in own_generators(model):
        seed = int(torch.randint(2**32, ()))
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        else:
            generator.seed(seed)
