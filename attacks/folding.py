"""Batch norm in eval mode is a part of the convolution before it: which layers can be joined, and joining them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized


def trace(model: nn.Module) -> fx.GraphModule | None:
    """The model's forward pass as a graph; None where it cannot be traced."""
    try:
        return fx.symbolic_trace(model)
    except Exception:  # control flow on values, and whatever else a forward pass may do
        return None


def foldable(traced: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Calls of a convolution, each with the call of the batch norm that alone reads it; each layer is called once.

    Batch norm in train mode, without running statistics, and layers under a parametrisation (spectral norm, weight
    norm) are left out.
    """
    modules: Mapping[str, nn.Module] = dict(traced.named_modules())
    uses = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    pairs = []
    for norm in traced.graph.nodes:
        feed = norm.args[0] if norm.op == "call_module" and norm.args else None
        if not isinstance(feed, fx.Node) or feed.op != "call_module" or len(feed.users) > 1:
            continue
        convolution, batch_norm = modules[str(feed.target)], modules[str(norm.target)]
        if type(convolution) is not nn.Conv2d or type(batch_norm) is not nn.BatchNorm2d:
            continue
        if uses.count(feed.target) > 1 or uses.count(norm.target) > 1:
            continue
        if batch_norm.running_var is None or batch_norm.training:
            continue
        if is_parametrized(convolution) or is_parametrized(batch_norm):
            continue
        pairs.append((feed, norm))
    return pairs


Pairs = Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]


def pairs_of(model: nn.Module) -> Pairs:
    """The layers of a model in eval mode that `folded` joins; none where its forward pass cannot be traced."""
    traced = trace(model)
    if traced is None:
        return []
    named = [(str(feed.target), str(norm.target)) for feed, norm in foldable(traced)]
    return [(model.get_submodule(feed), model.get_submodule(norm)) for feed, norm in named]  # type: ignore[misc]


@contextmanager
def folded(pairs: Pairs) -> Iterator[None]:
    """The batch norms are part of their convolutions in the block, for passes in eval mode without weight gradients.

    The same function but for rounding, and faster. Afterwards all is as it was.
    """
    before = [(convolution.weight, convolution.bias) for convolution, _ in pairs]
    try:
        for convolution, norm in pairs:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            own = convolution.weight.detach(), None if convolution.bias is None else convolution.bias.detach()
            joined = fuse_conv_bn_weights(*own, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            convolution.weight, convolution.bias = (
                nn.Parameter(tensor.detach(), requires_grad=False) for tensor in joined
            )
            norm.forward = _identity  # type: ignore[method-assign, assignment]
        yield
    finally:
        for (convolution, norm), (weight, bias) in zip(pairs, before, strict=True):
            convolution.weight, convolution.bias = weight, bias
            norm.__dict__.pop("forward", None)


def _identity(x: Tensor) -> Tensor:
    return x
