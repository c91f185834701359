"""Projections onto L1 and L0 balls cut with the pixel range, beside plain answers and the reference's."""

import itertools

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import L1_projection
from scipy.optimize import minimize
from torch import Tensor

from attacks.l1_ball import project_l0, project_l1
from attacks.threat_model import ThreatModel


def points(n: int, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images many of whose pixels are black or white, and points beside them, in and outside of the pixel range."""
    generator = torch.Generator().manual_seed(seed)
    x = (2 * torch.rand(n, *shape, generator=generator) - 0.5).clamp(0, 1)
    return x, x + torch.randn(x.shape, generator=generator)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0, 8.0, 40.0])
def test_the_l1_projection_is_the_references(epsilon: float) -> None:
    x, wished = points(200, (3, 4, 4))
    ours = project_l1(wished, x, epsilon)
    delta = wished - x
    theirs = x + delta + L1_projection(x, delta, epsilon)
    in_range = (x == 0) | (x == 1) | ((ours > 0) & (ours < 1))
    assert in_range.any()
    torch.testing.assert_close(ours, theirs.view_as(ours), rtol=0, atol=1e-10 if epsilon else 1e-8)


def test_no_other_point_of_the_set_is_nearer_by_a_general_solver() -> None:
    x, wished = points(5, (1, 2, 2), seed=3)
    for one, wish in zip(x.double().flatten(1).numpy(), wished.double().flatten(1).numpy(), strict=True):
        # z = x + up - down with up, down >= 0, so that the L1 norm is linear
        def distance(parts: np.ndarray, one: np.ndarray = one, wish: np.ndarray = wish) -> float:
            return float(((one + parts[:4] - parts[4:] - wish) ** 2).sum())

        bounds = [(0, 1 - value) for value in one] + [(0, value) for value in one]
        limit = {"type": "ineq", "fun": lambda parts: 0.7 - parts.sum()}
        solved = minimize(
            distance, np.zeros(8), bounds=bounds, constraints=[limit], method="SLSQP", options={"ftol": 1e-14}
        )
        nearest = one + solved.x[:4] - solved.x[4:]
        ours = project_l1(torch.tensor(wish)[None, None, None], torch.tensor(one)[None, None, None], 0.7)
        np.testing.assert_allclose(ours.numpy().ravel(), nearest, atol=2e-6)


@pytest.mark.parametrize("epsilon", [0.5, 12.0])
def test_projected_images_are_inside_in_float32_and_points_inside_stay(epsilon: float) -> None:
    threat = ThreatModel("L1", epsilon)
    x, wished = points(50, (3, 32, 32))
    inside = threat.project(wished, x)
    assert threat.contains(inside, x).all()
    assert (threat.distance(inside, x) > 0.999 * epsilon).all()
    near = x + 0.9 * epsilon * (0.5 - x) / (0.5 - x).abs().flatten(1).sum(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(threat.project(near, x), near, rtol=0, atol=1e-7)


def test_the_l0_projection_is_the_nearest_of_all_choices_of_pixels() -> None:
    x, wished = points(20, (2, 2, 3))
    ours = project_l0(wished, x, 2)
    inside = wished.clamp(0, 1)
    nearest = torch.full((20,), torch.inf)
    for chosen in itertools.combinations(range(6), 2):
        mask = torch.zeros(6)
        mask[list(chosen)] = 1
        candidate = torch.where(mask.view(1, 1, 2, 3) > 0, inside, x)
        nearest = torch.minimum(nearest, (candidate - wished).flatten(1).norm(dim=1))
    torch.testing.assert_close((ours - wished).flatten(1).norm(dim=1), nearest)
    assert ThreatModel("L0", 2).contains(ours, x).all()


def test_l1_adds_up_values_and_l0_counts_pixels_of_which_any_channel_differs() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x_adv = x.clone()
    x_adv[0, :, 0, 0], x_adv[0, 1, 1, 1] = 0.25, 0.5
    assert ThreatModel("L1", 1.0).distance(x_adv, x).tolist() == [1.25]
    assert ThreatModel("L0", 1).distance(x_adv, x).tolist() == [2]
    assert ThreatModel("L0", 2).contains(x_adv, x).all()
    assert not ThreatModel("L0", 1).contains(x_adv, x).any()


@pytest.mark.parametrize("epsilon", [0.1, 12.0, 60.0])
def test_rounding_carries_no_dense_move_of_a_large_image_out_of_the_ball(epsilon: float) -> None:
    """All 150,528 values move by little, and rounding to float32 adds up."""
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    threat = ThreatModel("L1", epsilon)
    for sign in (1.0, -1.0):
        for length in (1.5, 3.0):
            moved = threat.project(x + sign * length * epsilon / x[0].numel(), x)
            assert threat.contains(moved, x).all()
            assert float(threat.distance(moved, x).min()) > 0.9 * epsilon


def test_what_rounding_leaves_inside_is_rounded_to_nearest() -> None:
    x, wished = points(50, (3, 32, 32))
    for epsilon in (0.01, 2.0, 12.0):
        exact = project_l1(wished.double(), x.double(), epsilon)
        assert torch.equal(project_l1(wished, x, epsilon), exact.float().clamp(0, 1))
