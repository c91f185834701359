"""The margin at the boundary: zero where the logits say how near it is, and no false alarm at any scale of them."""

from pathlib import Path

import head_masks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.diagnose.boundary_check import boundary
from benchmark.diagnose.finding import findings


class Scaled(nn.Module):
    """Logits times a number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.network, self.scale = head_masks.shipped("madry"), scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.scale * self.network(x)
        return logits


def outcome(model: nn.Module, n: int = 100) -> str:
    images = balanced_subset(load("digits", "test", data_dir=Path()), n, seed=0)
    model = model.eval().requires_grad_(False)
    with torch.no_grad():
        correct = model(images.x).argmax(1) == images.y
    (finding,) = findings([boundary(model, images.x[correct], images.y[correct], batch_size=40)])
    return finding.outcome


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_an_honest_model_passes_at_any_scale_of_its_logits(scale: float) -> None:
    assert outcome(Scaled(scale)) == "passes"


def test_a_margin_that_jumps_where_the_class_changes_fails() -> None:
    assert outcome(head_masks.borrowed_confidence()) == "fails"


def test_images_of_one_class_cannot_tell() -> None:
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    assert boundary(head_masks.shipped("madry"), x, y).figure is None


def test_the_jump_is_counted_on_the_way_to_the_next_image_of_another_class() -> None:
    """Class 1 from 0.5 on. Towards it the margin of class 0 is 2 until there, or falls to zero on the way."""
    x = torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1, 1)
    y = torch.tensor([0, 0, 1])

    def steps(points: Tensor) -> Tensor:
        return F.one_hot((points.flatten() > 0.5).long(), 2).float()

    def slopes(points: Tensor) -> Tensor:
        s = points.flatten() - 0.5
        return torch.stack([-s, s], 1)

    assert (boundary(steps, x, y).figure, boundary(slopes, x, y).figure) == (100.0, 0.0)
