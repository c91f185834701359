"""L-BFGS and C&W's Linf attack look for the nearest misclassified point: how near they come, and how they search."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from attacks import attack, cw_linf, lbfgs
from attacks.draws import Draws
from attacks.oracle import CountingClassifier, Oracle
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel


class Linear(nn.Module):
    """Two classes, logits W (x - 1/2), whose boundary is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 16, generator=torch.Generator().manual_seed(2)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T


def problem(norm: str, n: int = 5) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """Images in the middle of the pixel range, and their exact distances to the nearest other class."""
    model = Linear().eval()
    x = 0.5 + 0.1 * (torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(3)) - 0.5)
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    gap = model.weight.detach()[y][:, None] - model.weight.detach()[None]
    length = gap.abs().sum(2) if norm == "Linf" else gap.norm(dim=2)
    distance = (logits.gather(1, y[:, None]) - logits) / length.clamp_min(1e-9)
    return model, x, y, distance.scatter(1, y[:, None], torch.inf).amin(1)


@pytest.mark.parametrize(("name", "norm", "factor"), [("lbfgs", "L2", 1.05), ("cw-linf-search", "Linf", 1.15)])
def test_it_breaks_an_image_little_beyond_its_exact_distance_and_never_before(
    name: str, norm: str, factor: float
) -> None:
    model, x, y, distance = problem(norm, n=2)
    for row in range(len(x)):
        one = x[row : row + 1], y[row : row + 1]
        beyond = attack(model, *one, name, epsilon=factor * float(distance[row]), norm=norm, precision="fp32")
        before = attack(model, *one, name, epsilon=0.99 * float(distance[row]), norm=norm, precision="fp32")
        assert (beyond.robust.tolist(), before.robust.tolist()) == ([False], [True])


def test_lbfgs_comes_near_the_nearest_point_of_the_pixel_range_where_that_of_the_plane_is_outside_of_it() -> None:
    model, x, _, _ = problem("L2", n=3)
    dark = x.clone()
    dark[:, :, :2] = 0.0
    with torch.no_grad():
        y = model(dark).argmax(1)
    normal = (model.weight[1 - y] - model.weight[y]).detach().double().numpy()
    for row, (clean, away) in enumerate(zip(dark.flatten(1).double().numpy(), normal, strict=True)):
        across = {"type": "ineq", "fun": lambda z, away=away: away @ (z - 0.5)}
        solved = minimize(
            lambda z, clean=clean: ((z - clean) ** 2).sum(),
            clean,
            jac=lambda z, clean=clean: 2 * (z - clean),
            method="SLSQP",
            bounds=[(0, 1)] * 16,
            constraints=[across],
        )
        assert solved.success
        distance = float(solved.fun) ** 0.5
        assert distance > 1.05 * float(-away @ (clean - 0.5)) / np.linalg.norm(away)  # that of the plane
        one = dark[row : row + 1], y[row : row + 1]
        beyond, before = (
            attack(model, *one, "lbfgs", epsilon=factor * distance, norm="L2", precision="fp32")
            for factor in (1.05, 0.99)
        )
        assert (beyond.robust.tolist(), before.robust.tolist()) == ([False], [True])


def test_lbfgs_shows_a_model_one_image_at_a_time() -> None:
    model, x, y, _ = problem("L2", n=3)
    sizes = set()

    def watched(points: Tensor) -> Tensor:
        sizes.add(len(points))
        logits: Tensor = model(points)
        return logits

    settings: dict[str, Any] = {"steps": 5, "searches": 2, "initial_const": 0.01}
    lbfgs.propose(CountingClassifier(watched), x, y, ThreatModel("L2", 0.5), seed=0, **settings)
    assert sizes == {1}


def test_tau_shrinks_where_a_point_succeeds_and_the_constant_doubles_where_none_does_for_long() -> None:
    model, x, y, _ = problem("Linf")
    threat = ThreatModel("Linf", 0.3)
    params = {**ATTACKS["cw-linf-search"].step_params, "tries": 20}
    oracle = Oracle(model, threat)
    state = cw_linf.init(x, y, threat, Draws.start(0, torch.arange(len(x))), initial_const=0.01)
    shrunk = doubled = 0
    for _ in range(200):
        after = cw_linf.step(oracle, state, **params)
        point = (state.place.tanh() + 1) / 2
        with torch.no_grad():
            wrong = model(point).argmax(1) != y
        largest = (point - x).abs().flatten(1).amax(1)
        succeeds = wrong & (largest <= state.tau)
        torch.testing.assert_close(after.tau, torch.where(succeeds, 0.9 * largest, state.tau))
        gives_up = ~succeeds & (state.tries == 19)
        assert torch.equal(after.const, torch.where(gives_up, 2 * state.const, state.const))
        assert (after.tries[succeeds | gives_up] == 0).all()
        assert threat.contains(after.x_adv, x).all()
        shrunk, doubled = shrunk + int(succeeds.sum()), doubled + int(gives_up.sum())
        state = after
    assert shrunk > 5
    assert doubled > 5


def test_the_constant_begins_anew_beyond_its_largest() -> None:
    model, x, y, _ = problem("Linf", n=1)
    threat = ThreatModel("Linf", 0.3)
    state = cw_linf.init(x, y, threat, Draws.start(0, torch.arange(1)), initial_const=0.01)
    state = replace(state, const=torch.tensor([15.0]), tau=torch.tensor([1e-9]), tries=torch.tensor([99]))
    assert cw_linf.step(Oracle(model, threat), state, **ATTACKS["cw-linf-search"].step_params).const.item() == (
        pytest.approx(0.01)
    )
