"""The copy of a model that attacks search on: faster, and rounded otherwise. Judging is always the model's own."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LAYERS = (nn.Conv2d, nn.Linear)
SAME_LOGITS = 1e-3
"""Largest relative difference of logits between a model and its folded copy."""


@torch.no_grad()
def search_model(model: nn.Module, x: Tensor, precision: torch.dtype) -> nn.Module:
    """What the attacks' gradients and logits are taken of, under autocast to the search precision.

    In bfloat16, batch norm is folded into the convolutions before it where the model can be traced, and the first and
    the last layer stay in float32: rounding the pixels hides small changes of an image, and rounding the logits hides
    small differences between them, which FAB and Square live on.

    Args:
        model: in eval mode, frozen; not modified.
        x: (N, C, H, W), some of its images; one of them is enough.
        precision: of the search; float32 needs no copy.
    """
    if precision == torch.float32:
        return model
    try:
        searched = copy.deepcopy(model)
    except Exception:  # the user's own module may hold what cannot be copied
        return model
    folded = _folded(searched)
    if folded is not None and _agree(folded, model, x):
        searched = folded
    for name in _ends(searched, x):
        _keep_float32(searched.get_submodule(name))
    searched.requires_grad_(False)
    return searched if _answers(searched, x, precision) else model


def _keep_float32(layer: nn.Module) -> None:
    """Have a layer compute in the type of its own weights under autocast."""
    forward, dtype = layer.forward, next(layer.parameters()).dtype

    def in_own_type(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            output: Tensor = forward(x.to(dtype))
        return output

    layer.forward = in_own_type


def _answers(model: nn.Module, x: Tensor, precision: torch.dtype) -> bool:
    """Whether the copy can be asked at all: the user's own code may expect what autocast does not give it."""
    try:
        with torch.autocast(x.device.type, precision):
            model(x)
    except Exception:
        return False
    return True


def _folded(model: nn.Module) -> nn.Module | None:
    """The model with each batch norm folded into the convolution that feeds it alone; None if it cannot be traced."""
    try:
        traced = fx.symbolic_trace(model)
    except Exception:  # control flow on values, and whatever else a forward pass may do
        return None
    modules: Mapping[str, nn.Module] = dict(traced.named_modules())
    uses = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for norm in list(traced.graph.nodes):
        feed = norm.args[0] if norm.op == "call_module" and norm.args else None
        if not isinstance(feed, fx.Node) or feed.op != "call_module" or len(feed.users) > 1:
            continue
        convolution, batch_norm = modules[str(feed.target)], modules[str(norm.target)]
        if not isinstance(convolution, nn.Conv2d) or not isinstance(batch_norm, nn.BatchNorm2d):
            continue
        if uses.count(feed.target) > 1 or batch_norm.running_var is None:
            continue
        parent, _, child = str(feed.target).rpartition(".")
        setattr(traced.get_submodule(parent), child, fuse_conv_bn_eval(convolution, batch_norm))
        norm.replace_all_uses_with(feed)
        traced.graph.erase_node(norm)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _agree(first: nn.Module, second: nn.Module, x: Tensor) -> bool:
    """Whether two models give the same logits but for rounding; randomised models do not agree even with themselves."""
    one, other = first(x), second(x)
    return bool((one - other).abs().max() <= SAME_LOGITS * other.abs().max())


def _ends(model: nn.Module, x: Tensor) -> set[str]:
    """Names of the convolutions or linear layers that a forward pass calls first and last."""
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return {*called[:1], *called[-1:]}
