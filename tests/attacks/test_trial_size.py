"""Trials of large images take fewer of them, and never fewer than some."""

import pytest
import torch

from attacks.trial_size import LEAST, trial_size


@pytest.mark.parametrize(("side", "asked", "expected"), [(8, 64, 64), (64, 256, 256), (224, 8, 3), (224, 256, 32)])
def test_small_images_are_asked_all_and_large_ones_in_part(side: int, asked: int, expected: int) -> None:
    assert trial_size(torch.empty(1, 3, side, side), asked) == expected


def test_no_trial_is_larger_than_asked_or_empty() -> None:
    for asked in (1, 2, LEAST, 8):
        assert 1 <= trial_size(torch.empty(0, 1, 1000, 1000), asked) <= asked
