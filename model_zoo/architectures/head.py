"""The last layer of any network, told apart from the features that it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

HIDDEN = 128


class MLPHead(nn.Sequential):
    """One hidden layer and dropout in place of a last linear layer: features (N, D) to logits (N, num_classes)."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, num_classes))


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """The name and the module of the head: an `MLPHead`, else the last linear layer."""
    modules: list[tuple[str, nn.Module]] = list(model.named_modules())
    heads = [entry for entry in modules if isinstance(entry[1], MLPHead)]
    linear = [entry for entry in modules if isinstance(entry[1], nn.Linear)]
    return (heads or linear)[-1]


def with_mlp_head(model: nn.Module) -> nn.Module:
    """The network, changed in place: its last linear layer is an `MLPHead` now."""
    name, last = head_of(model)
    assert isinstance(last, nn.Linear), "it has such a head already"
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, MLPHead(last.in_features, last.out_features))
    return model


def features_and_logits(model: nn.Module, x: Tensor, *, train_features: bool = True) -> tuple[Tensor, Tensor]:
    """What the head reads, (N, D), and the logits (N, K), from one forward pass.

    Args:
        train_features: False cuts the gradient at the features, so that it reaches the head alone.
    """
    with _reading(model, detach=not train_features) as read:
        logits = model(x)
    return read[0], logits


@contextmanager
def _reading(model: nn.Module, *, detach: bool) -> Iterator[list[Tensor]]:
    read: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        read.append(inputs[0].detach() if detach else inputs[0])
        return (read[-1],)

    hook = head_of(model)[1].register_forward_pre_hook(record)
    try:
        yield read
    finally:
        hook.remove()
