"""Projections beside the reference's and plain answers: to hyperplanes, and to threat models.

Under Linf and L2 the reference projects to a ball within its steps of APGD alone (`test_reference_apgd.py`).
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.fab_projections import projection_l2, projection_linf
from scipy.optimize import brentq, linprog
from torch import Tensor

from attacks.fab import to_hyperplane
from attacks.threat_model import ThreatModel

PROJECTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"Linf": projection_linf, "L2": projection_l2}
NORMS = pytest.mark.parametrize("norm", PROJECTIONS)


def hyperplanes(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images of 48 values, a seventh of them black and a seventh white; normals, a fifth of whose entries is 0; and
    offsets, half of which are out of reach."""
    generator = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(count, 3, 4, 4, generator=generator) - 0.2).clamp(0, 1)
    normal = torch.randn(x.shape, generator=generator) * (torch.rand(x.shape, generator=generator) > 0.2)
    normal = normal / normal.abs().amax((1, 2, 3), keepdim=True)
    return x, normal, 10 * torch.randn(count, generator=generator)


def by_the_reference(x: Tensor, normal: Tensor, offset: Tensor, norm: str) -> Tensor:
    """The same shortest delta; its hyperplane is that of the points z with normal . z = normal . x + offset."""
    flat, w = x.flatten(1), normal.flatten(1)
    return PROJECTIONS[norm](flat, w, (w * flat).sum(1) + offset).view_as(x)


@NORMS
@pytest.mark.usefixtures("float64")
def test_projections_to_hyperplanes_are_the_references(norm: str) -> None:
    x, normal, offset = hyperplanes(500)
    delta = to_hyperplane(x, normal, offset, norm=norm)
    torch.testing.assert_close(delta, by_the_reference(x, normal, offset, norm), rtol=0, atol=1e-12)
    reached = ((normal * delta).flatten(1).sum(1) - offset).abs() < 1e-9
    assert 100 < reached.sum() < 400
    pushed = torch.where(normal * offset.view(-1, 1, 1, 1) > 0, 1 - x, -x) * (normal != 0)
    torch.testing.assert_close(delta[~reached], pushed[~reached], rtol=0, atol=0)


@NORMS
def test_in_float32_they_are_nearer_to_the_exact_answer_than_the_references(norm: str) -> None:
    x, normal, offset = hyperplanes(500)
    exact = to_hyperplane(x.double(), normal.double(), offset.double(), norm=norm)
    ours, theirs = (
        (delta - exact).abs().amax((1, 2, 3)).quantile(0.99)  # the rest end where few pixels are left, ill-conditioned
        for delta in (to_hyperplane(x, normal, offset, norm=norm), by_the_reference(x, normal, offset, norm))
    )
    assert ours < 1e-6
    assert ours < theirs


DEGENERATE = {
    "no normal": ([0.2, 0.7], [0.0, 0.0], 0.3, [0.0, 0.0]),
    "neither normal nor offset": ([0.2, 0.7], [0.0, 0.0], 0.0, [0.0, 0.0]),
    "there already": ([0.2, 0.7], [1.0, -0.5], 0.0, [0.0, 0.0]),
    "out of reach": ([0.2, 0.7], [1.0, -0.5], 9.0, [0.8, -0.7]),
    "out of reach on the other side": ([0.2, 0.7], [1.0, -0.5], -9.0, [-0.2, 0.3]),
    "out of reach, one weight is 0": ([0.2, 0.7], [1.0, 0.0], 9.0, [0.8, 0.0]),
    "in a corner, and every way is out of the pixel range": ([0.0, 1.0], [-1.0, 0.5], 0.5, [0.0, 0.0]),
    "the last point in reach": ([0.25, 0.75], [1.0, -0.5], 1.125, [0.75, -0.75]),
    "one way only": ([0.0, 0.5], [-1.0, 0.5], 0.125, [0.0, 0.25]),
}


@NORMS
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.usefixtures("float64")
def test_degenerate_hyperplanes_have_their_plain_answer_and_the_references(norm: str, case: str) -> None:
    x, normal, offset, answer = (torch.tensor(value).view(1, 1, 1, -1) for value in DEGENERATE[case])
    delta = to_hyperplane(x, normal, offset.view(1), norm=norm)
    torch.testing.assert_close(delta, answer, rtol=0, atol=1e-12)
    torch.testing.assert_close(by_the_reference(x, normal, offset.view(1), norm), answer, rtol=0, atol=1e-12)


def reachable(count: int, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(48,) images and normals, and offsets from near to 0 to near to the largest that is reached, of either sign."""
    x, normal, _ = hyperplanes(count, seed)
    x, normal = x.flatten(1), normal.flatten(1)
    share = torch.linspace(-0.99, 0.99, count)
    largest = (normal * torch.where(normal * share[:, None] > 0, 1 - x, -x)).sum(1)
    return list(zip(x, normal, share.abs() * largest, strict=True))


def shortest(x: Tensor, normal: Tensor, offset: Tensor, norm: str) -> Tensor:
    """(48,) by our function."""
    return to_hyperplane(x.view(1, 3, 4, 4), normal.view(1, 3, 4, 4), offset.view(1), norm=norm).flatten()


@pytest.mark.usefixtures("float64")
def test_under_linf_the_projection_is_as_short_as_a_linear_program_finds() -> None:
    for x, normal, offset in reachable(30, seed=2):
        # Minimise t, the last variable, such that |delta_i| <= t, normal . delta = offset, x + delta in [0, 1].
        one = torch.eye(len(x))
        at_most = torch.cat([torch.cat([sign * one, -torch.ones(len(x), 1)], 1) for sign in (1, -1)])
        equal, cost = torch.cat([normal, torch.zeros(1)])[None], torch.eye(len(x) + 1)[-1]
        program = (cost, at_most, torch.zeros(len(at_most)), equal, offset[None])
        bounds = [*zip((-x).tolist(), (1 - x).tolist(), strict=True), (0, None)]
        found = linprog(*(tensor.numpy() for tensor in program), bounds)
        assert found.success
        delta = shortest(x, normal, offset, "Linf")
        assert float(delta.abs().max()) == pytest.approx(found.fun, abs=1e-9)
        assert float(delta @ normal) == pytest.approx(float(offset), abs=1e-9)


@pytest.mark.usefixtures("float64")
def test_under_l2_the_projection_is_the_clipped_multiple_of_the_normal_that_bisection_finds() -> None:
    for x, normal, offset in reachable(30, seed=3):
        # By the conditions of Karush, Kuhn and Tucker the answer is clip(mu normal, -x, 1 - x) for some mu.
        def surplus(mu: float, x: Tensor, normal: Tensor, offset: Tensor) -> float:
            return float(normal @ (mu * normal).clamp(-x, 1 - x) - offset)

        mu = brentq(surplus, -1e6, 1e6, args=(x, normal, offset), xtol=1e-14)
        expected = (mu * normal).clamp(-x, 1 - x)
        torch.testing.assert_close(shortest(x, normal, offset, "L2"), expected, rtol=0, atol=1e-9)


THREATS = pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.5)], ids=lambda t: t.norm)


@THREATS
def test_projections_to_a_threat_model_are_the_closed_form_in_float64(threat: ThreatModel) -> None:
    x, offsets, _ = hyperplanes(200)
    scale = torch.linspace(0, 1, 200).view(-1, 1, 1, 1)  # from the image itself to far outside
    x_adv = x + scale * offsets
    delta, image = (x_adv.double() - x.double()).numpy(), x.double().numpy()
    if threat.norm == "Linf":
        inside = delta.clip(-threat.epsilon, threat.epsilon)
    else:
        length = np.sqrt((delta**2).sum((1, 2, 3), keepdims=True))
        inside = np.where(length > threat.epsilon, delta * threat.epsilon / np.maximum(length, 1e-300), delta)
    expected = (image + inside).clip(0, 1)
    projected = threat.project(x_adv, x)
    assert np.abs(projected.double().numpy() - expected).max() < 1e-6
    assert not torch.equal(projected, x_adv.clamp(0, 1))


def test_directions_under_l2_are_those_of_the_references_apgd() -> None:
    _, gradient, _ = hyperplanes(50)
    attack = APGDAttack(None, norm="L2", eps=0.5, device="cpu")
    attack.init_hyperparam(gradient)
    direction = ThreatModel("L2", 0.5).direction(gradient)
    torch.testing.assert_close(direction, attack.normalize(gradient), rtol=0, atol=1e-6)
