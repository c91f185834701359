"""The first attack of all: box-constrained L-BFGS on distance plus cross-entropy towards another class."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.oracle import CountingClassifier
from attacks.threat_model import ThreatModel

Objective = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]


def propose(
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,  # noqa: ARG001 (deterministic)
    steps: int,
    searches: int,
    initial_const: float,
) -> Tensor:
    """The nearest misclassified point that scipy's L-BFGS-B finds, image by image, over a search for the constant.

    It minimises |x' - x|^2 + const * cross-entropy(x', target) in the pixel range, where the target is the likeliest
    wrong class. The constant doubles until a minimiser is misclassified, then it is bisected.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        steps: iterations of one minimisation, at most.
        searches: how many minimisations an image takes at most.
        initial_const: the first constant.

    Returns: the point found, or its projection where it is farther away than epsilon; inside the threat model. It
        minimises the L2 norm, and is weak under Linf.
    Source: Szegedy et al., arXiv:1312.6199, Section 4.1.
    Deviations: the distance is squared, and the target is not drawn.
    """
    found = [
        _nearest(classifier, x[row : row + 1], y[row : row + 1], threat, steps, searches, initial_const)
        for row in range(len(x))
    ]
    return threat.project(torch.cat(found), x) if found else x.clone()


def _nearest(
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    steps: int,
    searches: int,
    initial_const: float,
) -> Tensor:
    """(1, C, H, W) the nearest misclassified point of one image, the last minimiser where none is misclassified."""
    with torch.no_grad():
        target = classifier(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    const, fails_at, succeeds_at = initial_const, 0.0, np.inf
    best, distance, point = None, np.inf, x
    bounds = [(0.0, 1.0)] * x.numel()
    for _ in range(searches):
        objective = _objective(classifier, x, target, const)
        options = {"maxiter": steps, "maxcor": 10}
        solved = minimize(
            objective, x.flatten().double().cpu().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        point = torch.from_numpy(solved.x).to(x).view_as(x).clamp(0.0, 1.0)
        with torch.no_grad():
            is_found = bool(classifier(point).argmax(1) != y)
        if is_found:
            succeeds_at = const
            here = float(threat.distance(point, x))
            best, distance = (point, here) if here < distance else (best, distance)
            if distance <= threat.epsilon:
                break
        else:
            fails_at = const
        const = 2 * const if succeeds_at == np.inf else (fails_at + succeeds_at) / 2
    return point if best is None else best


def _objective(classifier: CountingClassifier, x: Tensor, target: Tensor, const: float) -> Objective:
    """The function that is minimised, of an image as a vector, with its gradient."""

    def value_and_gradient(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        with torch.enable_grad():
            point = torch.from_numpy(vector).to(x).view_as(x).requires_grad_()
            loss = cross_entropy(classifier(point), target)
            (gradient,) = torch.autograd.grad(loss, point)
        apart = vector - x.flatten().double().cpu().numpy()
        slope = gradient.flatten().double().cpu().numpy()
        return float(apart @ apart + const * loss.item()), 2 * apart + const * slope

    return value_and_gradient
