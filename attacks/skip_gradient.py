"""The skip gradient method: gradients through the residual branches of a network count for less."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attacks.errors import InputError

BRANCH_ENDS = {
    "BasicBlock": ("bn2",),
    "Bottleneck": ("bn3",),
    "PreActBlock": ("conv2",),
    "PreActBottleneck": ("conv3",),
    "WideBlock": ("conv2",),
    "_DenseLayer": ("conv2",),
    "DenseLayer": ("conv2",),
    "InvertedResidual": ("bn3", "conv"),
}
"""Classes of blocks, as torchvision, timm and this project call them, and the last module of the residual branch: the
first of these that a block has. A block with `convShortcut` is one of released wide ResNets, and ends in `conv2`."""
SHORTCUTS = ("downsample", "shortcut", "convShortcut")
"""What a block whose shortcut is no identity has in its place."""
HAS_SKIP = ("use_res_connect", "has_skip")
"""What says of some blocks whether they have a shortcut at all."""
TRIED = 2
"""How many images show whether the blocks have shortcuts."""


def residual_branches(model: nn.Module) -> list[nn.Module]:
    """The last module of each residual branch whose shortcut is an identity, in the model's order."""
    found = []
    for block in model.modules():
        ends = BRANCH_ENDS.get(type(block).__name__, ())
        if ends and hasattr(block, "convShortcut"):
            ends = ("conv2",)
        branch = next((part for end in ends if isinstance(part := getattr(block, end, None), nn.Module)), None)
        if branch is None or not all(getattr(block, name, True) for name in HAS_SKIP):
            continue
        if all(_is_identity(getattr(block, name, None)) for name in SHORTCUTS):
            found.append(branch)
    return found


@contextmanager
def skipping(model: nn.Module, gamma: float) -> Iterator[None]:
    """In the block, gradients through the model's residual branches are multiplied by gamma; logits stay as they are.

    Source: Wu et al., arXiv:2002.05990, Equations 5 and 6.
    Deviations: the factor acts once, at the branch's end; the authors' program has its root at each of a branch's
        ReLUs, leaves the first block of each group alone, and divides gradients between blocks by their standard
        deviation over the batch, which the normalisation of the step undoes.

    Raises: InputError for a model without a residual branch that is known here.
    """
    branches = residual_branches(model)
    if not branches:
        raise InputError(
            f"sgm: expected a network with residual blocks ({', '.join(BRANCH_ENDS)}) to craft on, got "
            f"{type(model).__name__} without; name a residual network by --sources, or use mi-fgsm"
        )

    def dampen(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gamma * gradient)

    handles = [branch.register_forward_hook(dampen) for branch in branches]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def require_skips(model: nn.Module, x: Tensor) -> None:
    """Raise InputError where the blocks that are known by name have no shortcuts, by the gradient at some images x."""
    x = x[:TRIED]
    with skipping(model, 0.0):
        past_the_branches = _gradient(model, x)
    if not past_the_branches.any() or torch.equal(past_the_branches, _gradient(model, x)):
        raise InputError(
            "sgm: expected residual blocks with shortcuts, got a network whose gradient comes through their branches "
            "alone, or not at all; name a residual network by --sources, or use mi-fgsm"
        )


def _gradient(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(point).logsumexp(1).sum(), point)
    return gradient


def _is_identity(shortcut: nn.Module | None) -> bool:
    if isinstance(shortcut, nn.Sequential):
        return len(shortcut) == 0
    return shortcut is None or isinstance(shortcut, nn.Identity)
