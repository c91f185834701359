"""What a step of a traced network does, as an operation that bounds understand.

Everything linear is a `Dense` or a `Convolution`: normalisation, batch norm in eval mode and average pooling, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from attacks.errors import InputError
from model_zoo.bounds.layers import (
    Convolution,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    Relu,
    layer_of,
)
from model_zoo.bounds.tracing import described, function_of, tensors_of


@dataclass(frozen=True)
class LeakyRelu:
    """v where it is positive, `leak` times v elsewhere; leak in [0, 1)."""

    leak: float

    def __call__(self, v: Tensor) -> Tensor:
        return F.leaky_relu(v, self.leak)


@dataclass(frozen=True)
class Sum:
    """The sum of two branches, of one shape."""

    def __call__(self, v: Tensor, w: Tensor) -> Tensor:
        return v + w


@dataclass(frozen=True)
class Image:
    """The image itself."""

    def __call__(self, v: Tensor) -> Tensor:
        return v


Operation = Layer | LeakyRelu | Sum | Image
Activation = Relu | LeakyRelu


def operations_of(
    step: fx.Node, model: nn.Module, shapes: Sequence[tuple[int, ...]], device: torch.device
) -> tuple[list[Operation], Tensor | None]:
    """What a traced step does, one operation after the other, and its constants where they are more than a bias."""
    if function_of(step) in ("add", "iadd", "add_") and step.op != "call_module":
        if len(shapes) == 2 and shapes[0] == shapes[1] and len(step.args) == 2 and not step.kwargs:
            return [Sum()], None
        raise refusal(step.name, "it adds something else than two layers of one shape")
    if len(shapes) != 1 or tensors_of(step) != [*step.args[:1]]:
        raise refusal(step.name, "it is not fed by one layer, nor the sum of two")
    (shape,) = shapes
    own, constants = _own(step, model, shape, device)
    known = layer_of(step, model) if own is None else own
    if known is None or any(isinstance(one, MaxPool) and one.pool.ceil_mode for one in known):
        raise refusal(step.name, f"no bound is known for {described(step, model)}")
    if known and not _takes(known[0], shape):
        raise refusal(step.name, f"no bound is known for {described(step, model)} on what has the shape {shape}")
    return [*known], constants


def _takes(operation: Operation, shape: tuple[int, ...]) -> bool:
    """Whether an operation bounds what has this shape, one image left out: a linear layer only a single axis."""
    match operation:
        case Dense():
            return len(shape) == 1
        case Convolution():
            return len(shape) == 3 and shape[0] == operation.weight.shape[1] * operation.groups
        case MaxPool():
            return len(shape) == 3
    return True


def _own(
    step: fx.Node, model: nn.Module, shape: tuple[int, ...], device: torch.device
) -> tuple[Sequence[Operation] | None, Tensor | None]:
    """What a step does that `layers` has no bound for, or in which more constants than a bias are added up."""
    if step.op == "call_module":
        return _from_module(step.name, model.get_submodule(str(step.target)), shape, device)
    settings = {**dict(zip(("1", "2"), step.args[1:], strict=False)), **step.kwargs}
    name = function_of(step)
    if name == "leaky_relu":
        return [LeakyRelu(_leak(step.name, settings.get("1", settings.get("negative_slope", 0.01))))], None
    if name == "mean" and len(shape) == 3 and settings.keys() <= {"1", "2", "dim", "keepdim"}:
        axes, keeps = settings.get("1", settings.get("dim")), settings.get("2", settings.get("keepdim", False))
        if isinstance(axes, (tuple, list)) and sorted(axis % 4 for axis in axes) == [2, 3]:
            pooled = _average(shape, shape[1:], shape[1:], (0, 0), device)
            return [pooled, *([] if keeps else [Flatten()])], None
    return None, None


def _from_module(
    name: str, module: nn.Module, shape: tuple[int, ...], device: torch.device
) -> tuple[Sequence[Operation] | None, Tensor | None]:
    match module:
        case nn.BatchNorm2d() | nn.BatchNorm1d() | nn.Dropout() if module.training:
            raise refusal(name, "it is kept in training mode, where it answers otherwise than in eval mode")
        case nn.BatchNorm2d() | nn.BatchNorm1d():
            if module.running_mean is None or module.running_var is None:
                raise refusal(name, "it has no running statistics, and answers by those of the batch")
            ones = torch.ones_like(module.running_var)
            scale = (ones if module.weight is None else module.weight) / (module.running_var + module.eps).sqrt()
            shift = torch.zeros_like(ones) if module.bias is None else module.bias
            constants = (scale * module.running_mean).abs() + shift.abs()
            return [_channelwise(scale, shift - scale * module.running_mean, shape)], constants
        case nn.LeakyReLU():
            return [LeakyRelu(_leak(name, module.negative_slope))], None
        case nn.AvgPool2d(ceil_mode=False, divisor_override=None) if len(shape) == 3:
            padding = _pair(module.padding)
            if padding != (0, 0) and not module.count_include_pad:
                return None, None
            return [_average(shape, _pair(module.kernel_size), _pair(module.stride), padding, device)], None
        case nn.AdaptiveAvgPool2d(output_size=(1 | (1, 1))) if len(shape) == 3:
            return [_average(shape, shape[1:], shape[1:], (0, 0), device)], None
    return None, None


def _channelwise(scale: Tensor, offset: Tensor, shape: tuple[int, ...]) -> Operation:
    """Each channel, or each neuron, times a number, plus another."""
    if len(shape) == 1:
        return Dense(scale.diag(), offset)
    return Convolution(scale.view(-1, 1, 1, 1), offset, groups=len(scale))


def _average(
    shape: Sequence[int], size: Sequence[int], stride: Sequence[int], padding: tuple[int, int], device: torch.device
) -> Convolution:
    """Average pooling as a convolution of each channel by itself."""
    height, width = size
    weight = torch.full((shape[0], 1, height, width), 1 / (height * width), dtype=torch.float64, device=device)
    return Convolution(weight, weight.new_zeros(shape[0]), _pair(stride), padding, groups=shape[0])


def _leak(name: str, leak: object) -> float:
    if isinstance(leak, (int, float)) and 0 <= leak < 1:
        return float(leak)
    raise refusal(name, f"its leak is {leak}, expected a number from 0 up to 1")


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def refusal(name: str, reason: str) -> InputError:
    """The error for a step that cannot be bounded, in one line."""
    return InputError(
        f"layer {name} cannot be bounded: {reason}; certify by smoothing, or a network of convolutions, linear layers, "
        "(leaky) ReLU, batch norm, average and max pooling, sums, flattening and normalisation"
    )
