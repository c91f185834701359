"""Fast adaptive boundary attack: walks to the nearest linearised boundary, and stays close to the image."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.scale import rescaled, times_power_of_two
from attacks.targets import first_targets
from attacks.threat_model import ThreatModel

FARTHEST = 1e30
"""A boundary at this distance is out of reach; what is farther stands for it, so that all stays finite."""


@dataclass(frozen=True)
class State:
    """One image's walk.

    x, point, x_adv: (N, C, H, W) in [0, 1]: the image, where the walk is (maybe outside the ball), the proposal.
    y, target: (N,) class indices. rank: (N,) which of the other classes the target is.
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor
    steps: Tensor
    rank: Tensor
    target: Tensor
    point: Tensor


def init(x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, *, targeted: bool) -> State:
    """The image itself; from the second start of an untargeted walk on, a random point at half of epsilon.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; y: (N,) class indices.
        targeted: whether the restart is the rank of a target.
    """
    point = x
    if not targeted:
        start = threat.on_sphere(x, draws)
        point = torch.where((draws.restart > 0).view(-1, 1, 1, 1), x + 0.5 * (start - x), x)
    return State(x, y, x, draws.step, draws.restart, torch.zeros_like(y), point)


def step(oracle: Oracle, state: State, *, targeted: bool, alpha_max: float, eta: float, beta: float) -> State:
    """Step over the linearised boundary between the label and the target, biased towards the image.

    Args:
        targeted: whether the target is the class of the image's rank; else it is the class with the nearest boundary.
        alpha_max: largest weight of the step that starts at the image.
        eta: overshoot over the boundary.
        beta: how far a point that is adversarial is drawn back towards the image.

    Returns: the next state; its x_adv, the projected point, lies inside the threat model.
    Source: Croce and Hein, arXiv:1907.02044, Algorithm 1; targets as in arXiv:2003.01690, Section 4.
    Deviations: a random start behind the first is half way to the clipped random point, where the authors' code clips
        the half-way point; the two differ where the pixel range cuts.
    """
    threat = oracle.threat
    if targeted:
        target = first_targets(oracle, state.x, state.y, state.rank, state.target, state.steps)
        state = replace(state, target=target)
        pair = torch.stack([state.y, target], 1)
        difference, normal = oracle.loss_and_gradient(state.point, pair, "difference")
    else:
        difference, normal = _nearest_boundary(oracle, state)

    normal, exponent = rescaled(normal)
    difference = times_power_of_two(difference, -exponent.flatten()).clamp(-FARTHEST, FARTHEST)
    lift = (normal * (state.point - state.x)).flatten(1).sum(1) - difference
    from_point = to_hyperplane(state.point, normal, -difference, norm=threat.norm)
    from_image = to_hyperplane(state.x, normal, lift, norm=threat.norm)
    lengths = [threat.distance(d, torch.zeros_like(d)).float().clamp_min(1e-8) for d in (from_point, from_image)]
    alpha = (lengths[0] / (lengths[0] + lengths[1])).clamp_max(alpha_max).view(-1, 1, 1, 1)
    point = (state.point + eta * from_point) * (1 - alpha) + (state.x + eta * from_image) * alpha
    point = point.clamp(0.0, 1.0)

    is_adversarial = oracle.logits(point).argmax(1) != state.y
    drawn_back = torch.where(is_adversarial.view(-1, 1, 1, 1), state.x + beta * (point - state.x), point)
    return replace(
        state,
        x_adv=threat.project(point, state.x),
        steps=state.steps + 1,
        point=drawn_back,
    )


def _nearest_boundary(oracle: Oracle, state: State) -> tuple[Tensor, Tensor]:
    """z_c - z_y (N,) and its gradient for the class c whose linearised boundary is nearest."""
    logits, jacobian = oracle.logits_and_jacobian(state.point)
    image = torch.arange(len(logits), device=logits.device)
    differences = logits - logits.gather(1, state.y[:, None])
    normals = jacobian - jacobian[image, state.y][:, None]
    order = 1 if oracle.threat.norm == "Linf" else 2
    scaled, exponent = rescaled(normals, (2, 3, 4))
    lengths = scaled.flatten(2).norm(p=order, dim=2).clamp_min(1e-12)  # at least 0.5 where it is not 0
    distances = times_power_of_two(differences.abs() / lengths, -exponent.flatten(1)).clamp_max(FARTHEST)
    nearest = distances.scatter(1, state.y[:, None], float("inf")).argmin(1)
    return differences[image, nearest], normals[image, nearest]


def to_hyperplane(x: Tensor, normal: Tensor, offset: Tensor, *, norm: str) -> Tensor:
    """The shortest delta with normal . delta = offset and x + delta in [0, 1]; the largest there is if none reaches it.

    Every coordinate moves in the direction that helps, by min(lam * pull, room): under Linf all alike, under L2
    in proportion to the normal. The progress, sum_i slope_i * min(lam, full_i), is piecewise linear in lam, so sorting
    the points `full` where coordinates run into the pixel range gives lam in closed form.

    Args:
        x, normal: (N, C, H, W); offset: (N,). The normal's largest entry is near 1 (or 0): its square is used.
    """
    w = (normal * torch.where(offset < 0, -1.0, 1.0).view(-1, 1, 1, 1)).flatten(1)
    flat = x.flatten(1)
    room = torch.where(w > 0, 1 - flat, flat)
    pull = torch.ones_like(w) if norm == "Linf" else w.abs()
    full = torch.where(w == 0, 0.0, room / pull.clamp_min(1e-30))
    slope = w.abs() * pull

    sorted_full, order = full.sort(1)
    sorted_slope = slope.gather(1, order)
    spent = (sorted_slope * sorted_full).cumsum(1)
    open_slope = sorted_slope.flip(1).cumsum(1).flip(1)  # of the coordinates that are not yet full, this one included
    reached = spent - sorted_slope * sorted_full + open_slope * sorted_full  # progress when coordinate j runs full
    j = torch.searchsorted(reached, offset.abs()[:, None]).clamp_max(w.shape[1] - 1)
    before = (spent - sorted_slope * sorted_full).gather(1, j)
    lam = (offset.abs()[:, None] - before) / open_slope.gather(1, j).clamp_min(1e-30)
    return (w.sign() * torch.minimum(lam * pull, room)).view_as(x)
