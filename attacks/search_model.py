"""The copy of a model that attacks search on: faster, and rounded otherwise. Judging is always the model's own."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from attacks.folding import foldable, trace
from attacks.generators import seeded
from attacks.out_of_memory import is_out_of_memory
from attacks.precision import full_float32
from attacks.trial_size import trial_size

LAYERS = (nn.Conv2d, nn.Linear)
COMPARED = 8
"""How many images a model and its copy are compared on; fewer large ones."""

FOLDED, ROUNDED = 0.02, 0.5
"""Largest relative differences of an image's logits and gradient between a model and its copy: folded, in bfloat16.

Of the models of digits, mnist and cifar10 no image comes to 4e-7 when folded, or to 0.27 in bfloat16; a lost gradient
is at 1.
"""


class InFloat32(nn.Module):
    """A model that takes no notice of autocast: what is searched where no copy of it can be trusted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.model(x)
        return logits


def precision_of(searched: nn.Module, precision: torch.dtype) -> torch.dtype:
    """What a searched model computes in where the search asks for `precision`."""
    return torch.float32 if isinstance(searched, InFloat32) else precision


def search_model(model: nn.Module, x: Tensor, precision: torch.dtype, *, randomized: bool = False) -> nn.Module:
    """What the attacks' gradients and logits are taken of, under autocast to the search precision.

    In bfloat16, batch norm is folded into the convolutions before it where the model can be traced, and the first and
    the last layer stay in float32: rounding the pixels hides small changes of an image, and rounding the logits hides
    small differences between them, which FAB and Square live on.

    A copy is used only where its logits and its image gradients are the model's, but for rounding; a straight-through
    estimator, for instance, may lose its gradient in tracing, or be an identity in bfloat16. Whatever goes wrong on the
    way to one means that the model itself is searched, in float32.

    Args:
        model: in eval mode, frozen; not modified.
        x: (N, C, H, W), some of its images, the first few of which are tried.
        precision: of the search; float32 needs no copy.
        randomized: whether it answers at random. Tracing freezes what Python draws, so there is no copy then.
    """
    if precision == torch.float32:
        return model
    if randomized:
        return InFloat32(model)
    try:
        tried = x[: trial_size(x, COMPARED)]
        with full_float32():
            searched = _copy(model, tried)
            agrees = _difference(searched, model, tried, precision) <= ROUNDED
    except Exception as error:  # a user's module may fail in any way when it is copied, traced or autocast
        if is_out_of_memory(error):
            raise
        return InFloat32(model)
    return searched if agrees else InFloat32(model)


def _copy(model: nn.Module, x: Tensor) -> nn.Module:
    searched = copy.deepcopy(model)
    folded = None if _has_hooks(searched) else _folded(searched)
    if folded is not None and _difference(folded, model, x, torch.float32) <= FOLDED:
        searched = folded
    for name in _ends(searched, x):
        _keep_float32(searched.get_submodule(name))
    return searched.requires_grad_(False)


def _has_hooks(model: nn.Module) -> bool:
    """Whether something runs around a module's forward pass: tracing may lose it, folding takes its weights away."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(module, kind) for module in model.modules() for kind in kinds)


def _keep_float32(layer: nn.Module) -> None:
    """Have a layer compute in the type of its own weights under autocast."""
    forward, dtype = layer.forward, next(layer.parameters()).dtype

    def in_own_type(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            output: Tensor = forward(x.to(dtype))
        return output

    layer.forward = in_own_type


def _folded(model: nn.Module) -> nn.Module | None:
    """The model with each batch norm folded into the convolution that feeds it alone; None if it cannot be traced."""
    traced = trace(model)
    if traced is None:
        return None
    modules = dict(traced.named_modules())
    for feed, norm in foldable(traced):
        parent, _, child = str(feed.target).rpartition(".")
        joined = fuse_conv_bn_eval(modules[str(feed.target)], modules[str(norm.target)])
        setattr(traced.get_submodule(parent), child, joined)
        norm.replace_all_uses_with(feed)
        traced.graph.erase_node(norm)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _difference(first: nn.Module, second: nn.Module, x: Tensor, precision: torch.dtype) -> float:
    """How far two models are apart on some images, the first one in the given precision, the second in float32.

    Returns: the largest relative difference of an image's logits or of its gradient, in Euclidean length; not a number
        where one is not finite.
    """
    pairs = []
    for model, type_ in ((first, precision), (second, torch.float32)):
        with seeded("search copy"), torch.enable_grad():
            images = x.clone().requires_grad_()
            with torch.autocast(x.device.type, torch.bfloat16, enabled=type_ == torch.bfloat16):
                logits = model(images).float()
            weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
            gradient = torch.autograd.grad((logits * weights).sum(), images)[0]
        pairs.append((logits.detach(), gradient))
    (logits, gradient), (own_logits, own_gradient) = pairs
    shares = _relative(logits, own_logits), _relative(gradient, own_gradient)
    return math.nan if any(map(math.isnan, shares)) else max(shares)


def _relative(first: Tensor, second: Tensor) -> float:
    """The largest, over images (rows of both), of the difference's length beside that of the second."""
    difference, length = (tensor.double().flatten(1).norm(dim=1) for tensor in (first - second, second))
    shares = torch.where(difference == 0, 0.0, difference / length.clamp_min(torch.finfo(torch.float32).tiny))
    return float(shares.max())


def _ends(model: nn.Module, x: Tensor) -> set[str]:
    """Names of the convolutions or linear layers that a forward pass calls first and last."""
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return {*called[:1], *called[-1:]}
