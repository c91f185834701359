"""The generators that a model may draw from are seeded by a key, and left as they were."""

import random

import numpy as np
import pytest
import torch

from attacks.generators import seeded


def draws() -> tuple[float, float, float]:
    """One number of each generator."""
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_one_key_gives_one_sequence_of_every_generator_and_others_give_others() -> None:
    seen = []
    for key in ((0, 250, 0), (0, 250, 1), (1, 250, 0), (0, 0, 0), (0, 250, "search"), (0, 250, 0)):
        draws()
        with seeded(*key):
            seen.append(draws())
    assert seen[0] == seen[-1]
    for generator in zip(*seen[:-1], strict=True):
        assert len(set(generator)) == 5


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_every_generator_goes_on_where_it_was(fails: bool) -> None:
    with seeded(1):
        expected = [draws(), draws()]
    with seeded(1):
        first = draws()
        try:
            with seeded(2):
                draws()
                if fails:
                    raise RuntimeError("out of order")
        except RuntimeError:
            pass
        assert [first, draws()] == expected
