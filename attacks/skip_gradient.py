"""The skip gradient method: gradients through the residual branches of a network count for less."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from attacks.errors import InputError

BRANCH_ENDS = {
    "BasicBlock": ("bn2", ("downsample", "shortcut")),
    "Bottleneck": ("bn3", ("downsample", "shortcut")),
    "PreActBlock": ("conv2", ("shortcut", "downsample")),
    "PreActBottleneck": ("conv3", ("shortcut", "downsample")),
    "WideBlock": ("conv2", ("convShortcut",)),
    "_DenseLayer": ("conv2", ()),
    "InvertedResidual": ("conv", ()),
}
"""Classes of blocks, as torchvision, timm and this project call them: the last module of the residual branch, and what
a block whose shortcut is no identity has in its place."""


def residual_branches(model: nn.Module) -> list[nn.Module]:
    """The last module of each residual branch whose shortcut is an identity, in the model's order."""
    found = []
    for block in model.modules():
        end, shortcuts = BRANCH_ENDS.get(type(block).__name__, ("", ()))
        branch = getattr(block, end, None) if end else None
        if not isinstance(branch, nn.Module) or getattr(block, "use_res_connect", True) is False:
            continue
        if all(_is_identity(getattr(block, name, None)) for name in shortcuts):
            found.append(branch)
    return found


@contextmanager
def skipping(model: nn.Module, gamma: float) -> Iterator[None]:
    """In the block, gradients through the model's residual branches are multiplied by gamma; logits stay as they are.

    Source: Wu et al., arXiv:2002.05990, Equations 5 and 6.
    Deviations: the factor acts once, at the branch's end; the authors' program has its root at each of a branch's
        ReLUs, and divides gradients between blocks by their standard deviation over the batch, which the normalisation
        of the step undoes.

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


def _is_identity(shortcut: nn.Module | None) -> bool:
    return (
        shortcut is None
        or isinstance(shortcut, nn.Identity)
        or (isinstance(shortcut, nn.Sequential) and len(shortcut) == 0)
    )
