"""Adversarial examples from before: kept, found again, and judged anew."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.gate.examples import Examples, broken_by

CPU = Hardware(torch.device("cpu"), torch.float32, 4)
LINF = ThreatModel("Linf", 0.25)
IMAGES = Split("toy", "test", torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64), torch.arange(6) * 10, 2)


def bright_is_one(x: Tensor) -> Tensor:
    mean = x.flatten(1).mean(1)
    return torch.stack([torch.full_like(mean, 0.6), mean], 1)


def test_kept_points_come_back_with_their_images(tmp_path: Path) -> None:
    examples = Examples(tmp_path)
    points = torch.full((3, 1, 2, 2), torch.nan)
    points[1] = 0.75
    examples.keep("key", torch.tensor([0, 10, 20]), points)
    examples.keep("key", torch.tensor([30]), torch.full((1, 1, 2, 2), torch.nan))
    index, found = examples.of("key")
    assert index.tolist() == [10]
    assert torch.equal(found, points[1:2])
    assert len(examples.of("other")[0]) == 0


def test_images_are_broken_by_points_inside_the_threat_model_only(tmp_path: Path) -> None:
    examples = Examples(tmp_path)
    points = torch.stack([torch.full((1, 2, 2), v) for v in (0.75, 0.5, 1.0, 0.75)])
    examples.keep("key", torch.tensor([0, 10, 20, 999]), points)
    broken, passes = broken_by(examples.of("key"), bright_is_one, IMAGES, LINF, CPU)
    assert broken.tolist() == [True, False, False, False, False, False]
    assert passes.tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_damaged_file_is_passed_over(tmp_path: Path, content: bytes) -> None:
    examples = Examples(tmp_path)
    examples.keep("key", torch.tensor([0]), torch.full((1, 1, 2, 2), 0.75))
    (tmp_path / "key" / "damaged.npz").write_bytes(content)
    assert examples.of("key")[0].tolist() == [0]
