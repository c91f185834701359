import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.threat_model import ThreatModel

BOTH = pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.5)], ids=lambda t: t.norm)


def images(seed: int, *, n: int = 50, low: float = 0.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, 2, 3, 3, generator=generator)


def edge_images(seed: int, *, n: int = 50) -> Tensor:
    """Images many of whose pixels are black or white."""
    return images(seed, n=n, low=-1.0, high=2.0).clamp(0, 1)


def start(threat: ThreatModel, x: Tensor) -> Tensor:
    return threat.random_start(x, Draws.start(3, torch.arange(len(x))))


def test_distances_are_the_largest_and_the_euclidean_over_all_pixels_of_an_image() -> None:
    x, x_adv = images(0), images(1)
    flat = (x_adv.double() - x.double()).flatten(1).numpy()
    for norm, order in (("Linf", np.inf), ("L2", 2)):
        distance = ThreatModel(norm, 0.1).distance(x_adv, x)
        assert distance.dtype == torch.float64
        np.testing.assert_allclose(distance, np.linalg.norm(flat, order, axis=1), rtol=1e-12)


@BOTH
def test_projected_points_are_inside(threat: ThreatModel) -> None:
    x = edge_images(2)
    far = x + 3 * (images(3) - 0.5)
    assert not threat.contains(far, x).any()
    assert threat.contains(threat.project(far, x), x).all()


@BOTH
def test_projection_leaves_points_inside_alone(threat: ThreatModel) -> None:
    x = images(4, low=0.3, high=0.7)
    near = x + 0.9 * threat.epsilon / math.sqrt(18) * torch.sign(images(5) - 0.5)
    assert threat.contains(near, x).all()
    torch.testing.assert_close(threat.project(near, x), near, rtol=0, atol=1e-7)


@BOTH
def test_projection_of_a_projection_is_the_projection(threat: ThreatModel) -> None:
    x = edge_images(6)
    once = threat.project(x + 3 * (images(7) - 0.5), x)
    # In L2 the length of the first projection is epsilon but for rounding, by which the second one scales it again.
    torch.testing.assert_close(threat.project(once, x), once, rtol=0, atol=0 if threat.norm == "Linf" else 1e-6)


@BOTH
def test_projection_gives_the_nearest_point(threat: ThreatModel) -> None:
    """p is the nearest point of a convex set to z if and only if (z - p).(q - p) <= 0 for each q in the set."""
    # Under Linf the set with the pixel range is a box again; under L2 this holds before the pixel range cuts the ball.
    x = edge_images(8) if threat.norm == "Linf" else images(8, low=0.5, high=0.5)
    z = x + 2 * (images(9) - 0.5)
    p = threat.project(z, x)
    for seed in range(10, 40):
        q = threat.project(x + 4 * (images(seed) - 0.5), x)
        angle = ((z - p) * (q - p)).double().flatten(1).sum(1)
        assert angle.max() < 1e-6


def test_the_ball_comes_before_the_pixel_range() -> None:
    threat = ThreatModel("L2", 0.5)
    x, z = torch.tensor([0.9, 0.5]).view(1, 1, 1, 2), torch.tensor([3.9, 4.5]).view(1, 1, 1, 2)
    # (3, 4) has length 5, so the ball leaves (0.3, 0.4) of it, and the pixel range (0.1, 0.4).
    torch.testing.assert_close(threat.project(z, x), torch.tensor([1.0, 0.9]).view(1, 1, 1, 2))


@BOTH
def test_directions_have_unit_length_and_ascend(threat: ThreatModel) -> None:
    gradient = 1e-4 * (images(11) - 0.5)
    direction = threat.direction(gradient)
    origin = torch.zeros_like(gradient)
    assert threat.distance(direction, origin).numpy() == pytest.approx(1.0, abs=1e-6)
    dual = gradient.flatten(1).norm(p=1 if threat.norm == "Linf" else 2, dim=1)
    torch.testing.assert_close((direction * gradient).flatten(1).sum(1), dual)


@BOTH
def test_the_direction_of_a_zero_gradient_is_zero(threat: ThreatModel) -> None:
    assert not threat.direction(torch.zeros(2, 1, 3, 3)).any()


@BOTH
def test_random_starts_are_inside_even_at_the_pixel_range(threat: ThreatModel) -> None:
    x = edge_images(12, n=500)
    started = start(threat, x)
    assert threat.contains(started, x).all()
    assert (started.flatten(1) != x.flatten(1)).any(1).all()


@BOTH
def test_the_random_start_of_an_image_is_its_own(threat: ThreatModel) -> None:
    x = images(13, n=6)
    index = torch.tensor([9, 2, 40, 7, 1, 3])
    whole = threat.random_start(x, Draws.start(3, index))
    for rows in ([0], [5, 1, 3]):
        alone = threat.random_start(x[rows], Draws.start(3, index[rows]))
        torch.testing.assert_close(alone, whole[rows], rtol=0, atol=1e-7)


def test_linf_random_starts_are_uniform_at_every_pixel_away_from_the_pixel_range() -> None:
    threat = ThreatModel("Linf", 0.1)
    x = torch.full((4000, 1, 2, 2), 0.5)
    delta = ((start(threat, x) - x) / threat.epsilon).double().flatten(1)
    for pixel in delta.T:
        assert stats.kstest(pixel.numpy(), "uniform", (-1, 2)).pvalue > 0.001
    assert (torch.corrcoef(delta.T) - torch.eye(4)).abs().max() < 5 / math.sqrt(4000)


def test_l2_random_starts_are_uniform_in_the_ball() -> None:
    threat = ThreatModel("L2", 0.4)
    x = torch.full((4000, 1, 2, 3), 0.5)
    delta = (start(threat, x) - x).double().flatten(1)
    radius = delta.norm(dim=1)
    assert stats.kstest((radius / threat.epsilon).numpy() ** 6, "uniform").pvalue > 0.001
    # On the sphere of d dimensions the square of a coordinate is Beta(1/2, (d - 1)/2), with either sign.
    for coordinate in (delta / radius[:, None]).T:
        assert stats.kstest(coordinate.numpy() ** 2, "beta", (0.5, 2.5)).pvalue > 0.001
        assert abs((coordinate > 0).double().mean() - 0.5) < 0.04


@BOTH
def test_the_ball_holds_its_border_but_nothing_beyond(threat: ThreatModel) -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    outward = torch.zeros_like(x)
    outward[0, 0, 0, 0] = threat.epsilon
    assert threat.contains(x + outward, x).all()
    assert not threat.contains(x + 1.001 * outward, x).any()


@BOTH
@pytest.mark.parametrize(("pixel", "contained"), [(0.0, True), (1.0, True), (-1e-9, False), (1.0000002, False)])
def test_the_pixel_range_is_exact(threat: ThreatModel, pixel: float, contained: bool) -> None:
    x = torch.full((1, 1, 2, 2), float(round(pixel)))
    x_adv = x.clone()
    x_adv[0, 0, 0, 0] = pixel
    assert threat.contains(x_adv, x).item() is contained


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_outside(threat: ThreatModel, value: float) -> None:
    x = images(14, n=3)
    x_adv = x.clone()
    x_adv[1, 0, 2, 1] = value
    assert threat.contains(x_adv, x).tolist() == [True, False, True]


@BOTH
def test_a_projection_does_not_hide_what_is_no_number(threat: ThreatModel) -> None:
    x = images(15, n=2)
    broken = torch.full_like(x, math.nan)
    assert not threat.contains(threat.project(broken, x), x).any()


@BOTH
def test_with_epsilon_zero_only_the_image_itself_is_inside(threat: ThreatModel) -> None:
    nothing = ThreatModel(threat.norm, 0.0)
    x = images(16)
    assert torch.equal(nothing.project(images(17), x), x)
    assert torch.equal(start(nothing, x), x)
    assert not nothing.contains(x + 1e-4, x).any()


@BOTH
def test_no_images_are_no_trouble(threat: ThreatModel) -> None:
    nothing = images(18, n=0)
    assert threat.contains(threat.project(nothing, nothing), nothing).shape == (0,)


@pytest.mark.parametrize(
    ("norm", "epsilon", "message"),
    [
        ("Linf", 8, "epsilon must be in [0, 1] pixel scale for Linf, got 8; did you mean 8/255?"),
        ("Linf", 1.5, "epsilon must be in [0, 1] pixel scale for Linf, got 1.5; did you mean 1.5/255?"),
        ("L2", 128.0, "epsilon must be in [0, 10] pixel scale for L2, got 128.0; did you mean 128/255?"),
        ("Linf", 300, "epsilon must be in [0, 1] pixel scale for Linf, got 300"),
        ("Linf", -0.1, "epsilon must be in [0, 1] pixel scale for Linf, got -0.1"),
        ("L2", math.nan, "epsilon must be in [0, 10] pixel scale for L2, got nan"),
        ("L2", math.inf, "epsilon must be in [0, 10] pixel scale for L2, got inf"),
        ("linf", 0.1, "norm must be one of Linf, L2, L1, L0, spatial-30deg, got 'linf'"),
        ("L3", 0.1, "norm must be one of Linf, L2, L1, L0, spatial-30deg, got 'L3'"),
        ("L0", -1, "epsilon must be in [0, 10000] pixels for L0, got -1"),
        ("L0", 2.5, "epsilon of L0 is a number of pixels, expected a whole one, got 2.5"),
        ("spatial-30deg", 200, "epsilon must be in [0, 100] pixels for spatial-30deg, got 200"),
    ],
)
def test_what_is_no_radius_in_pixel_scale_is_refused(norm: str, epsilon: float, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ThreatModel(norm, epsilon)
    assert str(caught.value) == message


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.0), ("Linf", 1.0), ("Linf", 8 / 255), ("L2", 10.0)])
def test_radii_up_to_the_largest_are_accepted(norm: str, epsilon: float) -> None:
    assert ThreatModel(norm, epsilon).epsilon == epsilon
