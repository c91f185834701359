"""A network as the sequence of its layers, each as much as a bound needs to know of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from attacks.errors import InputError
from attacks.models.normalisation import Normalize
from model_zoo.bounds.tracing import described, function_of, is_size, refuse_hooks, tensors_of, traced

Shape = Sequence[int]


@dataclass(frozen=True)
class Dense:
    """v to W v + b. `weight` is (M, D), `bias` (M,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        """(N, D) to (N, M)."""
        return F.linear(v, self.weight, self.bias)

    def linear(self, v: Tensor) -> Tensor:
        """W v, for v (..., D)."""
        return F.linear(v, self.weight)

    def magnitude(self, radius: Tensor) -> Tensor:
        """|W| radius: how far W v can be from W c, for v within radius of c."""
        return F.linear(radius, self.weight.abs())

    def transpose(self, rows: Tensor, shape: Shape) -> Tensor:  # noqa: ARG002 (follows from the weight)
        """W^T applied to each of (N, R, M) rows: (N, R, D)."""
        return rows @ self.weight

    def offset(self, rows: Tensor) -> Tensor:
        """(N, R) inner products of the rows with b."""
        return rows @ self.bias


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution with zero padding. `weight` is (O, I / groups, H, W), `bias` (O,)."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __call__(self, v: Tensor) -> Tensor:
        """(N, I, H, W) to (N, O, H', W')."""
        return self._convolve(v, self.weight, self.bias)

    def linear(self, v: Tensor) -> Tensor:
        """The convolution without its bias, for v (..., I, H, W)."""
        out: Tensor = self._convolve(v.flatten(0, -4), self.weight, None).unflatten(0, v.shape[:-3])
        return out

    def magnitude(self, radius: Tensor) -> Tensor:
        """How far the outputs can be from those of c, for inputs within radius of c."""
        return self._convolve(radius, self.weight.abs(), None)

    def transpose(self, rows: Tensor, shape: Shape) -> Tensor:
        """The transposed convolution of each of (N, R, O, H', W') rows: (N, R, *shape)."""
        extra = [
            shape[1 + i]
            - ((rows.shape[3 + i] - 1) * self.stride[i] - 2 * self.padding[i])
            - (self.dilation[i] * (self.weight.shape[2 + i] - 1) + 1)
            for i in (0, 1)
        ]
        flat = F.conv_transpose2d(
            rows.flatten(0, 1), self.weight, None, self.stride, self.padding, extra, self.groups, self.dilation
        )
        out: Tensor = flat.unflatten(0, rows.shape[:2])
        return out

    def offset(self, rows: Tensor) -> Tensor:
        """(N, R) inner products of the rows with the bias, which is the same at every place."""
        return rows.sum((3, 4)) @ self.bias

    def _convolve(self, v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(v, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True)
class Flatten:
    """(N, ...) to (N, D)."""

    def __call__(self, v: Tensor) -> Tensor:
        return v.flatten(1)


@dataclass(frozen=True)
class Relu:
    """max(v, 0)."""

    def __call__(self, v: Tensor) -> Tensor:
        return v.relu()


@dataclass(frozen=True)
class MaxPool:
    """The maximum over windows; increasing in every input, as `Relu` is."""

    pool: nn.MaxPool2d

    def __call__(self, v: Tensor) -> Tensor:
        out: Tensor = self.pool(v)
        return out


Affine = Dense | Convolution
Layer = Affine | Flatten | Relu | MaxPool


def layers(model: nn.Module) -> list[Layer]:
    """The layers of a network that is one chain, with its own parameters, so that gradients reach them.

    Dropout is left out, as in eval mode. Normalisation is a convolution of each channel by itself.

    Args:
        model: images (N, C, H, W) to logits; written as modules or as functions.

    Raises: InputError for a layer that cannot be bounded, which it names.
    """
    found: list[Layer] = []
    last: fx.Node | None = None
    refuse_hooks(model)
    for node in traced(model).nodes:
        if is_size(node):
            continue
        if node.op != "placeholder" and tensors_of(node) != [last]:
            raise _refusal(node, "it is not fed by the layer before it alone")
        if node.op not in ("placeholder", "output"):
            step = layer_of(node, model)
            if step is None:
                raise _refusal(node, f"no bound is known for {described(node, model)}")
            found += step
        last = node
    if not found or not isinstance(found[-1], Dense):
        raise InputError(f"expected a network that ends in a linear layer, got {type(model).__name__}")
    return found


def layer_of(node: fx.Node, model: nn.Module) -> list[Layer] | None:
    """What a step of the traced network is: one layer, none where it changes nothing; None where it is another."""
    if node.op == "call_module":
        return _from_module(model.get_submodule(str(node.target)))
    match function_of(node):
        case "relu":
            return [Relu()]
        case "flatten" if {"end_dim": -1, **_settings(node, ("start_dim", "end_dim"))} == {
            "start_dim": 1,
            "end_dim": -1,
        }:
            return [Flatten()]
        case "view" | "reshape" if len(node.args) == 3 and is_size(node.args[1]) and node.args[2] == -1:
            return [Flatten()]
        case "max_pool2d":
            settings = _settings(node, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"))
            if not settings.get("return_indices"):
                return [MaxPool(nn.MaxPool2d(**settings))]
    return None


def _settings(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """What a step is called with beside a tensor, by name."""
    return {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}


def _from_module(module: nn.Module) -> list[Layer] | None:
    match module:
        case nn.Linear():
            return [Dense(module.weight, _bias(module.bias, module.weight))]
        case nn.Conv2d(padding_mode="zeros") if not isinstance(module.padding, str):
            geometry = (_pair(module.stride), _pair(module.padding), _pair(module.dilation), module.groups)
            return [Convolution(module.weight, _bias(module.bias, module.weight), *geometry)]
        case Normalize():
            scale = 1 / module.std.view(-1, 1, 1, 1)
            return [Convolution(scale, (-module.mean / module.std).flatten(), groups=len(scale))]
        case nn.ReLU():
            return [Relu()]
        case nn.Flatten(start_dim=1, end_dim=-1):
            return [Flatten()]
        case nn.MaxPool2d(return_indices=False):
            return [MaxPool(module)]
        case nn.Dropout() | nn.Identity():
            return []
    return None


def _bias(bias: Tensor | None, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    height, width = sizes
    return height, width


def _refusal(node: fx.Node, reason: str) -> InputError:
    return InputError(
        f"layer {node.name} cannot be bounded: {reason}; use a network that is one chain of convolutions, "
        "linear layers, ReLU, flattening, normalisation and (for intervals) max-pooling, such as strided-cnn"
    )
