"""Generators that a model holds as attributes: seeded by torch's, they make it as repeatable as torch's own do."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def own_generators(model: nn.Module) -> Iterator[Any]:
    """The generators among the attributes of a model and its parts."""
    for module in model.modules():
        yield from (value for value in list(vars(module).values()) if isinstance(value, KINDS))


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
