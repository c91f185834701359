"""What a module reaches: its attributes, and whatever lies in these."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import CellType, FunctionType, MethodType, ModuleType

import numpy as np
from torch import Tensor, nn

LEAVES = (type, ModuleType, Tensor, np.ndarray, str, bytes, int, float, complex, type(None))
"""What holds nothing of the model's own."""
MOST = 100_000
"""How many objects are looked into."""


def reachable(model: nn.Module) -> Iterator[object]:
    """The objects that a model reaches, each once: by attributes, containers, closures, and modules in these.

    Numbers, strings, tensors and arrays come as often as they are held.
    """
    seen: dict[int, object] = {}
    pending: list[object] = [model]
    while pending and len(seen) < MOST:
        value = pending.pop()
        if isinstance(value, LEAVES):
            yield value
        elif id(value) not in seen:
            seen[id(value)] = value
            yield value
            pending += _parts(value)


def _parts(value: object) -> Iterable[object]:
    """What an object holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, deque)):
        return list(value)
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, CellType):
        try:
            return [value.cell_contents]
        except ValueError:  # nothing was assigned yet
            return []
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return list(getattr(value, "__dict__", {}).values())
