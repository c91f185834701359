"""A network as a graph of layers: what the networks of the zoo have, sums of branches included."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from attacks.errors import InputError, one_line
from attacks.models.user_model import Quirks, UserModel
from model_zoo.bounds.layers import Dense
from model_zoo.bounds.operations import Activation, Image, Operation, operations_of, refusal
from model_zoo.bounds.tracing import is_size, refuse_hooks, refuse_overwritten, traced

IMAGE = 0
"""The place of the image among the nodes."""
FLOAT32 = 2.0**-24
"""Half the distance from 1 to the next number."""


@dataclass(frozen=True)
class Node:
    """One step of a network.

    Args:
        name: for messages.
        operation: what it does.
        feeds: the places of the nodes that it reads, all before its own.
        shape: (...) of what it puts out for one image.
        constants: (M,) or (O,) the absolute constants that its arithmetic adds up, where they are more than its bias:
            batch norm subtracts a mean before it scales; None for |bias|.
    """

    name: str
    operation: Operation
    feeds: Sequence[int]
    shape: tuple[int, ...]
    constants: Tensor | None = None


@dataclass(frozen=True)
class Network:
    """A network in float64, from images (N, C, H, W) to logits (N, K).

    Args:
        nodes: the image first, the linear layer of the logits last.
        unit: the rounding unit of the pass that is bounded: 2^-24 for the judge's float32, 0 for exact arithmetic.
    """

    nodes: Sequence[Node]
    unit: float = FLOAT32

    @property
    def last(self) -> int:
        """The place of the logits."""
        return len(self.nodes) - 1

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return self.nodes[-1].shape[0]

    @property
    def largest(self) -> int:
        """How many numbers the largest node puts out for one image."""
        return max(torch.Size(node.shape).numel() for node in self.nodes)

    @property
    def relus(self) -> int:
        """How many activations there are for one image."""
        return sum(torch.Size(node.shape).numel() for node in self.nodes if isinstance(node.operation, Activation))

    def outputs(self, x: Tensor) -> list[Tensor]:
        """What every node puts out for images (N, C, H, W), in order."""
        found = [x]
        for node in self.nodes[1:]:
            found.append(node.operation(*(found[feed] for feed in node.feeds)))
        return found


def graph(model: nn.Module, shape: Sequence[int]) -> Network:
    """The graph of a network as it is, in float64; the model is not changed.

    Args:
        model: images (N, *shape) to logits.
        shape: (C, H, W).

    Raises: InputError, in one line, for what no bound is known for, which it names.
    """
    exact = _copied(_without_wrapper(model))
    steps = traced(exact)
    refuse_overwritten(steps, exact)
    nodes = [Node("image", Image(), (), tuple(shape))]
    places: dict[fx.Node, int] = {}
    device = next((tensor.device for tensor in (*exact.parameters(), *exact.buffers())), torch.device("cpu"))
    for step in steps.nodes:
        if step.op == "placeholder":
            if places:
                raise refusal(step.name, "it is an input beside the images; have forward take images alone")
            places[step] = IMAGE
            continue
        if is_size(step):
            continue
        if step.op == "output":
            if step.args[0] not in places:
                raise refusal(step.name, "it returns something else than logits")
            return _ending_in_logits(nodes, places[step.args[0]], model)
        feeds = [places[feed] for feed in step.all_input_nodes if feed in places]
        operations, constants = operations_of(step, exact, [nodes[feed].shape for feed in feeds], device)
        for operation in operations:
            inputs = [torch.zeros(1, *nodes[feed].shape, dtype=torch.float64, device=device) for feed in feeds]
            after = tuple(operation(*inputs).shape[1:])
            nodes.append(Node(step.name, operation, tuple(feeds), after, constants))
            feeds = [len(nodes) - 1]
        places[step] = feeds[0]
    raise InputError(f"expected a network that returns logits, got {type(model).__name__}, which returns nothing")


def _ending_in_logits(nodes: Sequence[Node], last: int, model: nn.Module) -> Network:
    if not isinstance(nodes[last].operation, Dense) or last != len(nodes) - 1:
        raise InputError(f"expected a network that ends in a linear layer, got {type(model).__name__}")
    return Network(nodes)


def _copied(model: nn.Module) -> nn.Module:
    """A copy in float64 without gradients."""
    refuse_hooks(model)
    try:
        exact = copy.deepcopy(model)
    except Exception as error:  # a model may hold what it likes
        raise InputError(
            f"expected a model that can be copied, got one that cannot ({one_line(error)}); keep what cannot be copied "
            "outside of it"
        ) from None
    for parameter in exact.parameters():
        parameter.requires_grad_(False)
    return exact.double()


def _without_wrapper(model: nn.Module) -> nn.Module:
    """A user's own model without what runs it; its normalisation stays in front."""
    if not isinstance(model, UserModel):
        return model
    if unlike := _unlike_a_network(model.quirks):
        raise InputError(
            "expected a plain network in float32, which alone can be bounded, got a model that "
            f"{' and '.join(unlike)}; certify by smoothing, or have the factory return a plain one"
        )
    return nn.Sequential(model.normalize, model.model)


def _unlike_a_network(quirks: Quirks) -> list[str]:
    """What a model does that no bound knows of, in a few words each."""
    said = {
        f"returns its logits as {quirks.output}": bool(quirks.output),
        f"takes images in {quirks.dtype}": bool(quirks.dtype),
        "keeps something from pass to pass": quirks.keeps_state,
        "draws from generators of its own": quirks.has_generators,
        "returns what is no plain tensor": quirks.returns_arrays,
    }
    return [what for what, holds in said.items() if holds]
