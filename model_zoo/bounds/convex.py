"""The convex outer bound: every ReLU between two parallel lines, and the worst case over all of them at once.

Between the bounds l < 0 < u of its input, relu(z) lies in s z + [0, -s l] with s = u / (u - l). So the network is an
affine function of the image and of one slack for each ReLU, and a linear function of its outputs has its extremes in
closed form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.errors import InputError
from model_zoo.bounds.interval_bounds import Box, image_box, margin_rows, margins_over, propagate
from model_zoo.bounds.layers import Convolution, Dense, Flatten, Layer, MaxPool, Relu, Shape, layers


@dataclass(frozen=True)
class Relaxation:
    """relu(z) lies within `half` of slope * z + half.

    Args:
        slope: (N, ...) in [0, 1].
        half: (N, ...), at least 0; 0 where the sign of z is known.
    """

    slope: Tensor
    half: Tensor


@dataclass(frozen=True)
class Step:
    """A layer, the shape (...) of one image's input to it, and for a ReLU its relaxation."""

    layer: Layer
    shape: Shape
    relaxation: Relaxation | None = None


def margins(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, projection: Tensor | None = None) -> Tensor:
    """(N, K) lower bounds of f_y - f_k over the Linf ball; 0 at k = y.

    Args:
        x: (N, C, H, W) in [0, 1]; y: (N,) class indices.
        epsilon: radius in pixel scale.
        projection: (P, C, H, W) draws of the standard Cauchy distribution: the bounds of the second layer of ReLU are
            then estimated by medians over P instead of computed over all pixels. Faster, but no longer a bound.

    Source: Wong and Kolter, arXiv:1711.00851, Theorem 1 and Algorithm 1; the projections are those of Wong et al.,
        arXiv:1805.12514, Section 3.2.
    Deviations: the ball is cut with the pixel range; every bound is the better one of the dual's and of intervals, so
        it is never looser than interval propagation; only the norms over pixels are estimated by projections.
    """
    chain = layers(model)
    if pooled := [layer for layer in chain if isinstance(layer, MaxPool)]:
        raise InputError(
            f"layer {type(pooled[0].pool).__name__} cannot be bounded by convex relaxation; use a network without "
            "max-pooling, such as strided-cnn, or bound it by intervals"
        )
    image = image_box(x, epsilon)
    steps: list[Step] = []
    box = image
    for layer in chain[:-1]:
        shape = box.lower.shape[1:]
        if isinstance(layer, Relu):
            box = box.meet(_input_of_relu(steps, image, shape, projection)) if _relus(steps) else box
            steps.append(Step(layer, shape, relax(box)))
        else:
            steps.append(Step(layer, shape))
        box = propagate([layer], box)
    last = chain[-1]
    assert isinstance(last, Dense)
    rows = margin_rows(y, last.weight)
    center, radius = _backward(rows, [*steps, Step(last, box.lower.shape[1:])], image)
    return torch.maximum(center - radius, margins_over(last, y, box))


def relax(box: Box) -> Relaxation:
    """The two parallel lines between which a ReLU with inputs in `box` lies."""
    lower, upper = box.lower, box.upper
    unstable = (lower < 0) & (upper > 0)
    width = torch.where(unstable, upper - lower, 1.0)  # a quotient that is not used must have a gradient, too
    slope = torch.where(unstable, upper / width, (lower >= 0).to(lower.dtype))
    return Relaxation(slope, torch.where(unstable, -slope * lower / 2, 0.0))


def _relus(steps: Sequence[Step]) -> int:
    return sum(step.relaxation is not None for step in steps)


def _input_of_relu(steps: Sequence[Step], image: Box, shape: Shape, projection: Tensor | None) -> Box:
    """What the steps so far can put out, a row of coefficients for each neuron or a column for each pixel."""
    neurons = torch.Size(shape).numel()
    pixels = len(projection) if projection is not None else image.lower[0].numel()
    if _relus(steps) == 1 and pixels < neurons:
        center, radius = _forward(steps, image, projection)
    else:
        one = torch.eye(neurons, dtype=image.lower.dtype, device=image.lower.device)
        rows = one.view(1, neurons, *shape).expand(len(image.lower), -1, *(-1 for _ in shape))
        center, radius = (part.view(-1, *shape) for part in _backward(rows, steps, image))
    return Box(center - radius, center + radius)


def _backward(rows: Tensor, steps: Sequence[Step], image: Box) -> tuple[Tensor, Tensor]:
    """(N, R) centers and radii of linear functions of the last step's output.

    Args:
        rows: (N, R, ...) their coefficients.
    """
    center = radius = rows.new_zeros(rows.shape[:2])
    for step in reversed(steps):
        match step.layer:
            case Dense() | Convolution():
                center = center + step.layer.offset(rows)
                rows = step.layer.transpose(rows, step.shape)
            case Flatten():
                rows = rows.unflatten(2, step.shape)
            case _:
                assert step.relaxation is not None
                half = step.relaxation.half
                center = center + _inner(rows, half)
                radius = radius + _inner(rows.abs(), half)
                rows = rows * step.relaxation.slope.unsqueeze(1)
    return center + _inner(rows, image.center), radius + _inner(rows.abs(), image.radius)


def _inner(rows: Tensor, v: Tensor) -> Tensor:
    """(N, R) inner products of (N, R, ...) rows with (N, ...) vectors, without a product as large as the rows."""
    return (rows.flatten(2) @ v.flatten(1).unsqueeze(2)).squeeze(2)


def _forward(steps: Sequence[Step], image: Box, projection: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N, ...) center and radius of what the steps, one ReLU among them, put out; one column for each pixel.

    The same as `_backward` from all neurons, for less where a layer has more neurons than the image has pixels.
    """
    pixels = image.radius[0]
    columns = torch.eye(pixels.numel(), dtype=pixels.dtype, device=pixels.device).view(-1, *pixels.shape)
    columns = (columns if projection is None else projection) * image.radius.unsqueeze(1)
    center, slack = image.center, None
    for step in steps:
        match step.layer:
            case Dense() | Convolution():
                center, columns = step.layer(center), step.layer.linear(columns)
                slack = None if slack is None else step.layer.magnitude(slack)
            case Flatten():
                center, columns = center.flatten(1), columns.flatten(2)
                slack = None if slack is None else slack.flatten(1)
            case _:
                assert step.relaxation is not None
                slope, slack = step.relaxation.slope, step.relaxation.half
                center, columns = slope * center + slack, slope.unsqueeze(1) * columns
    assert slack is not None
    spread = columns.abs().sum(1) if projection is None else columns.abs().median(1).values
    return center, spread + slack
