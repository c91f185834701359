"""Which images fell, and what their classes are called."""

import numpy as np
import torch

from benchmark.data.split import Split
from benchmark.gate.fallen import fallen_images


def test_classes_of_own_images_are_called_by_their_own_names_whatever_their_folder_is_called() -> None:
    y = torch.tensor([0, 1, 1, 0])
    own = Split("cifar10", "test", torch.zeros(4, 1, 2, 2), y, torch.arange(4), 2, ("zero", "one"))
    robust = np.array([False, False, False, True])
    text = fallen_images(own, np.arange(4), np.ones(4, np.bool_), robust)
    assert "3 images fell, 0 rose; by class: 1 one (2), 0 zero (1); images 0, 1, 2" in text
    official = Split("cifar10", "test", own.x, y, own.index, 10)
    assert "1 automobile (2), 0 airplane (1)" in fallen_images(official, np.arange(4), np.ones(4, np.bool_), robust)
