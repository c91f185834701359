"""A model's forward pass as a graph of steps, and what such a graph does not show."""

import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from weakref import WeakSet

from torch import fx, nn
from torch.nn.utils import parametrize

from attacks.errors import InputError
from attacks.models.normalisation import Normalize
from model_zoo.architectures.strided_conv import HalvingConv2d

REMEDIES = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm",
    "BasePruningMethod": "torch.nn.utils.prune.remove",
}
"""By the class of a hook that computes a weight, what leaves the weight and takes the hook away."""
VIEWS = ("flatten", "view", "reshape", "Flatten", "Identity", "Dropout")
"""Functions and modules, in eval mode, that return what they are given, or another view of it."""


def traced(model: nn.Module) -> fx.Graph:
    """The model's forward pass as a graph of steps. Raises: InputError for one that cannot be traced."""
    try:
        return _Tracer().trace(model)
    except Exception as error:  # tracing runs the model's own code, which may raise what it likes
        raise InputError(
            f"expected a network that is a graph of layers, got {type(model).__name__}, "
            f"which cannot be traced ({type(error).__name__}); bound another architecture"
        ) from error


Hook = TypeVar("Hook", bound=Callable[..., Any])
_LOOKING_ON: WeakSet[Callable[..., Any]] = WeakSet()
"""Of `changes_nothing`."""


class _Proxy(fx.Proxy):
    """A value while it is traced; fx takes `z += y`, which works in place on all that is called z, for a new sum."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    """Looks into every module but torch's own, the normalisation and a convolution that computes what torch's does."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Normalize | HalvingConv2d) or super().is_leaf_module(module, name)


def changes_nothing(hook: Hook) -> Hook:
    """A forward hook that looks on, and that bounds need not see."""
    _LOOKING_ON.add(hook)
    return hook


def refuse_hooks(model: nn.Module) -> None:
    """Raise InputError where a module that tracing does not look into, or the model itself, is not as its class is."""
    tracer = _Tracer()
    for name, module in model.named_modules():
        if module is not model and not tracer.is_leaf_module(module, name):
            continue
        called = f"layer {name}" if name else f"the model, a {type(module).__name__},"
        for hook in module._forward_pre_hooks.values():
            for remedy in (REMEDIES[one.__name__] for one in type(hook).__mro__ if one.__name__ in REMEDIES):
                raise InputError(f"{called} cannot be bounded: a hook computes its weight; call {remedy} first")
        if parametrize.is_parametrized(module):
            remedy = "torch.nn.utils.parametrize.remove_parametrizations"
            raise InputError(f"{called} cannot be bounded: its weight is computed anew each time; call {remedy} first")
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(hook not in _LOOKING_ON for hook in hooks):
            raise InputError(f"{called} cannot be bounded: it has forward hooks, which no bound sees; remove them")
        if "forward" in vars(module):
            raise InputError(
                f"{called} cannot be bounded: its forward was replaced, which no bound sees; write a class of its own"
            )


def refuse_overwritten(steps: fx.Graph, model: nn.Module) -> None:
    """Raise InputError where a step works in place, and what it overwrote is read after it by another name."""
    place = {step: at for at, step in enumerate(steps.nodes)}
    memory: dict[fx.Node, fx.Node] = {}
    for step in steps.nodes:
        memory[step] = step
        if step.args and isinstance(step.args[0], fx.Node):
            if _is_in_place(step, model):
                for reader in _readers(step.args[0], memory):
                    if place[reader] > place[step]:
                        raise InputError(
                            f"layer {step.name} cannot be bounded: it works in place, and {reader.name} reads after it "
                            "what it overwrote; have it make a new tensor"
                        )
            if _is_in_place(step, model) or _kind(step, model) in VIEWS:
                memory[step] = memory[step.args[0]]


def _readers(overwritten: fx.Node, memory: dict[fx.Node, fx.Node]) -> Iterator[fx.Node]:
    """All that reads a tensor, or another one, of those so far, that may lie in the same memory."""
    for other, at in memory.items():
        if at is memory[overwritten]:
            yield from (reader for reader in other.users if not is_size(reader))


def _is_in_place(step: fx.Node, model: nn.Module) -> bool:
    if step.op == "call_module":
        return bool(getattr(model.get_submodule(str(step.target)), "inplace", False))
    name = function_of(step)
    return name == "iadd" or name.endswith("_") or bool(step.kwargs.get("inplace")) or step.args[-1] is True


def _kind(step: fx.Node, model: nn.Module) -> str:
    """The class of a step's module, or its function."""
    return type(model.get_submodule(str(step.target))).__name__ if step.op == "call_module" else function_of(step)


def function_of(node: fx.Node) -> str:
    """The name of the function or method that a step calls."""
    return str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")


def described(node: fx.Node, model: nn.Module) -> str:
    """What a message calls a step without a bound: the class of its module, or its function."""
    return _kind(node, model) or "it"


def tensors_of(node: fx.Node) -> list[fx.Node]:
    """What a step reads, sizes left out."""
    return [feed for feed in node.all_input_nodes if not is_size(feed)]


def is_size(value: object) -> bool:
    """Whether a value is a size (`x.size()`, `x.shape`) or the number of images in it (`x.size(0)`, `x.shape[0]`)."""
    if not isinstance(value, fx.Node):
        return False
    name, rest = function_of(value), value.args[1:]
    if name == "getitem":
        return rest == (0,) and is_size(value.args[0])
    return (name == "size" and rest in ((), (0,))) or (name == "getattr" and rest == ("shape",))
