"""What a layer of a network returns, or its last linear layer reads, had by the network's own forward pass."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from attacks.errors import InputError


def features_and_logits(classifier: Callable[[Tensor], Tensor], x: Tensor, layer: str = "") -> tuple[Tensor, Tensor]:
    """(N, D) features and the logits of images x (N, C, H, W), from one pass with whatever it does to both.

    Args:
        classifier: a module.
        layer: a module's name, or the last parts of one ("network.act2", "act2"), whose output the features are; "" for
            the input of the last linear layer that the pass calls and that has an output for each class, or the logits
            where it calls none on one row an image. Where a layer sees several points of each image, draw by draw,
            their mean. A detector's logits are one more than its classes.

    Raises: InputError for a layer that there is not, that returns nothing to take a distance of, or that has no
        gradient where one is asked for.
    """
    if not isinstance(classifier, nn.Module):
        raise InputError(f"features: expected a torch.nn.Module, whose layers can be read, got {type(classifier)}")
    seen: list[Any] = []
    read: list[tuple[Any, int]] = []

    def keep_input(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        read.append((inputs[0], output.shape[-1]))

    def keep_output(_: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        seen.append(output)

    if layer:
        hooks = [module.register_forward_hook(keep_output) for module in _called(classifier, layer)]
    else:
        linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
        hooks = [module.register_forward_hook(keep_input) for module in linear]
    try:
        logits: Tensor = classifier(x)
    finally:
        for hook in hooks:
            hook.remove()
    seen += [points for points, outputs in read if outputs >= logits.shape[1] - 1]
    last = seen[-1] if seen else None
    if isinstance(last, Tensor) and (layer or last.ndim == 2) and len(last) and len(last) % len(x) == 0:
        if x.requires_grad and not last.requires_grad:
            raise InputError(
                "features: expected a layer that passes gradients to the images, got none; use another loss"
            )
        return last.reshape(len(last) // len(x), len(x), -1).mean(0), logits
    if layer:
        raise InputError(f"layer {layer}: expected a tensor of one row an image, got none; name another layer")
    return logits, logits


def _called(classifier: nn.Module, layer: str) -> list[nn.Module]:
    """The modules of that name; a pass calls one of them, or one of their copies."""
    found = [module for name, module in classifier.named_modules() if name == layer or name.endswith(f".{layer}")]
    if not found:
        names = [name for name, module in classifier.named_modules() if name and not any(module.children())]
        known = (name.removeprefix("model.") for name in names)  # of what wraps a user's own
        raise InputError(f"unknown layer {layer!r}; known: {', '.join(known)}")
    return found
