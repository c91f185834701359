"""Fast adaptive boundary attack: walks to the nearest linearised boundary, and stays close to the image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.scale import rescaled, rescaled_by, times_power_of_two
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

    normal, shift = rescaled_by(normal)
    difference = shift(difference).clamp_(-FARTHEST, FARTHEST)
    lift = (normal * (state.point - state.x)).flatten(1).sum(1).sub_(difference)
    ends = torch.stack([state.point, state.x])
    to_plane = to_hyperplane(ends, normal, torch.stack([-difference, lift]), norm=threat.norm)
    from_point, from_image = _lengths(threat, to_plane)
    alpha = (from_point / (from_point + from_image)).clamp_max_(alpha_max).view(-1, 1, 1, 1)
    beyond_point, beyond_image = to_plane.mul_(eta).add_(ends).unbind()
    point = beyond_point.mul_(1 - alpha).add_(beyond_image.mul_(alpha)).clamp_(0.0, 1.0)

    is_adversarial = oracle.logits(point).argmax(1) != state.y
    back = (point - state.x).mul_(beta).add_(state.x)
    drawn_back = torch.where(is_adversarial.view(-1, 1, 1, 1), back, point)
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
        x: (..., N, C, H, W), several points of each image; normal: (N, C, H, W); offset: (..., N). The normal's largest
            entry is near 1 (or 0): its square is used.
    """
    flat = x.flatten(-3)
    w = normal.flatten(-3) * torch.copysign(torch.ones_like(offset), offset).unsqueeze(-1)
    room = torch.where(w > 0, 1 - flat, flat)
    slope = w.abs()
    if norm == "Linf":
        full = room.masked_fill(w == 0, 0.0)
    else:
        pull = slope
        full = (room / pull.clamp_min(1e-30)).masked_fill_(w == 0, 0.0)
        slope = slope * pull

    sorted_full, order = full.sort(-1)
    sorted_slope = slope.gather(-1, order)
    spent_here = sorted_slope * sorted_full
    spent_before = spent_here.cumsum(-1).sub_(spent_here)
    open_slope = sorted_slope.flip(-1).cumsum(-1).flip(-1)  # of the coordinates not yet full, this one included
    reached = (open_slope * sorted_full).add_(spent_before)  # progress when coordinate j runs full
    distance = offset.abs().unsqueeze(-1)
    j = torch.searchsorted(reached, distance).clamp_max_(w.shape[-1] - 1)
    lam = (distance - spent_before.gather(-1, j)).div_(open_slope.gather(-1, j).clamp_min_(1e-30))
    moved = torch.minimum(lam if norm == "Linf" else lam * pull, room)
    return moved.mul_(w.sign_()).view_as(x)


def _lengths(threat: ThreatModel, delta: Tensor) -> Sequence[Tensor]:
    """(N,) the lengths of changes (P, N, C, H, W), at least 1e-8: one for each of the P."""
    if threat.norm == "Linf":
        return delta.abs().amax((2, 3, 4)).clamp_min_(1e-8).unbind()
    flat = delta.flatten(0, 1)
    lengths = threat.distance(flat, torch.zeros_like(flat)).float().clamp_min_(1e-8)
    return lengths.view(delta.shape[:2]).unbind()
