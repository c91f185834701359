import pytest
import torch
from torch import Tensor

from attacks.scale import rescaled, times_power_of_two, unit
from attacks.threat_model import ThreatModel


def gradients(*, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scale", [1e-41, 1e-20, 1.0, 1e37])
def test_directions_do_not_depend_on_the_scale(scale: float, order: int) -> None:
    expected = gradients().double()
    expected = expected / torch.linalg.vector_norm(expected, order, (1, 2, 3), keepdim=True)
    tolerance = 1e-3 if scale == 1e-41 else 1e-6  # a denormal number has few digits
    torch.testing.assert_close(unit(gradients(scale=scale), order=order).double(), expected, rtol=0.01, atol=tolerance)


def test_directions_are_rounded_as_without_rescaling() -> None:
    gradient = gradients()
    norm = torch.linalg.vector_norm(gradient, 2, (1, 2, 3), keepdim=True)
    assert torch.equal(unit(gradient), gradient / norm)


def test_nothing_has_no_direction() -> None:
    assert torch.equal(unit(torch.zeros(2, 1, 2, 2)), torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize("scale", [1e-44, 1.0, 3e38])
def test_rescaling_is_exact_and_brings_the_largest_entry_below_one(scale: float) -> None:
    tensor = (scale * torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))).clamp_min(1e-45)
    scaled, exponent = rescaled(tensor)
    largest = scaled.amax((1, 2, 3))
    assert ((largest >= 0.5) & (largest < 1)).all()
    assert torch.equal(times_power_of_two(scaled, exponent), tensor)


def test_the_steepest_l2_ascent_on_a_denormal_gradient_has_unit_length() -> None:
    direction = ThreatModel("L2", 1.0).direction(gradients(scale=1e-42))
    torch.testing.assert_close(direction.flatten(1).norm(dim=1), torch.ones(6))
