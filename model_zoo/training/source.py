"""A model trained before another one, which takes its features, its examples or its labels."""

from pathlib import Path

import torch
from torch import nn

from model_zoo.architectures.head import head_of
from model_zoo.architectures.registry import MLP, build
from model_zoo.weights.checkpoint import load_into, load_state_dict
from model_zoo.weights.weight_keys import unparallel


def load_source(path: Path, architecture: str, classes: int, *, with_head: bool) -> nn.Module:
    """The first stage's model, frozen and in eval mode.

    Args:
        architecture: of the model that is to be trained; the source has it too, but for a hidden layer in the head.
        classes: how many the new model has.
        with_head: False where only the features are used: the source may have been trained on other classes.

    Raises: InputError for a checkpoint that is missing, damaged, unsafe, or of another architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(architecture.removesuffix(MLP), classes)
    weights = unparallel(load_state_dict(path))
    if not with_head:
        head = head_of(model)[0] + "."
        own = {name: value for name, value in model.state_dict().items() if name.startswith(head)}
        weights = {name: value for name, value in weights.items() if not name.startswith(head)} | own
    load_into(model, weights, source=str(path))
    return model.eval().requires_grad_(False)


def take_features(model: nn.Module, source: nn.Module) -> None:
    """Give a model, in place, all of the source's weights but the head's."""
    head = head_of(source)[0] + "."
    body = {name: value for name, value in source.state_dict().items() if not name.startswith(head)}
    model.load_state_dict(model.state_dict() | body)
