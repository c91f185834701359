"""Where in a checkpoint the weights are, and under which names: training scripts wrap both."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from model_zoo.weights.wrapper import is_constant, prefix_of

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema", "ema_state_dict", "state_dict_ema", "model_ema")
"""Under which of these keys the weights lie; the first one counts where there are several."""

PREFIXES = ("module.", "_orig_mod.", "model.", "ema.", "net.")
"""What stands in front of names after DataParallel, torch.compile, a training framework or an averaged model."""

COMPILED = "_orig_mod."
"""Stands inside of a name where a part of a model was compiled."""

UNREAD = ".num_batches_tracked"
"""How many batches a batch norm was trained on: old files lack it, and evaluation never reads it."""

COUNTER = "n_averaged"
"""How many models an average is made of: a tensor beside its weights."""


def unwrapped(content: object) -> tuple[object, str]:
    """What lies under the wrappers in a checkpoint's content; the content itself where there is none.

    Returns: that; and which weights were taken where there are others too, in a few words, "" where there are none.
    """
    chosen = ""
    while isinstance(content, Mapping):
        inner = {key: content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)}
        weights = [key for key, value in inner.items() if _has_weights(value)]
        if not inner:
            break
        key = weights[0] if weights else next(iter(inner))
        if len(weights) > 1:
            left_out = ", ".join(map(repr, weights[1:]))
            chosen = f"took {key!r}, left out {left_out}; for these, load the file in a factory, without --checkpoint"
        content = inner[key]
    return content, chosen


def _has_weights(content: Mapping[Any, Any]) -> bool:
    """Whether there are tensors in a mapping, or below a wrapper in it."""
    inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    return any(isinstance(value, Tensor) for value in content.values()) or any(map(_has_weights, inner))


def unparallel(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without the `module.` that DataParallel puts in front of every name."""
    parallel = all(name.startswith("module.") for name in state_dict)
    return {name.removeprefix("module.") if parallel else name: value for name, value in state_dict.items()}


def fitted(state_dict: Mapping[str, Tensor], own: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Weights under the names that a model has for them.

    A name that the model has stays. Others lose, one after the other, what is in `PREFIXES`, until the model has what
    is left; or they get what the model has in front of it. In the end those that are left all lose, or all get, what a
    wrapper by any name put in front of them.

    Args:
        own: the model's state dict.

    Returns: the weights, those that fit nowhere under names of theirs; and what was done, in a few words, "" for
        nothing.
    """
    bare = [_bare(name) for name in own]
    by_bare = {key: name for key, name in zip(bare, own, strict=True) if bare.count(key) == 1}
    result = {name: value for name, value in state_dict.items() if name in own}
    others = [name for name in state_dict if name not in own]
    stripped, added, left_out = dict[str, None](), dict[str, None](), dict[str, None]()
    homeless = []
    for name in sorted(others, key=_rank):
        target, prefix = _target(name, own)
        if target is None and (known := by_bare.get(_bare(name))) is not None:
            target = known
            added[known.removesuffix(_bare(known)) or COMPILED] = None
        if target is None:
            homeless.append(name)
        elif target in result:
            left_out[prefix] = None
        else:
            result[target] = state_dict[name]
            if prefix:
                stripped[prefix] = None
    homeless = _rewrapped(homeless, state_dict, own, result, stripped, added)
    for name in homeless:
        prefix = next((prefix for prefix in stripped if name.startswith(prefix)), "")
        if name == COUNTER and stripped:
            left_out[name] = None
        else:
            result[name.removeprefix(prefix)] = state_dict[name]
    changes = {"stripped": stripped, "added": added, "left out": left_out}
    return result, ", ".join(f"{word} {', '.join(map(repr, what))}" for word, what in changes.items() if what)


def _rewrapped(
    homeless: list[str],
    state_dict: Mapping[str, Tensor],
    own: Mapping[str, Any],
    result: dict[str, Tensor],
    stripped: dict[str, None],
    added: dict[str, None],
) -> list[str]:
    """Give names that are left the prefix of a wrapper, or take it away, where that is all that they lack.

    Returns: the names that are left then.
    """
    weights = {_bare(name): name for name in homeless if name != COUNTER and not is_constant(name, state_dict[name])}
    places = {name for name, value in own.items() if name not in result and not is_constant(name, value)}
    if not any(name.endswith(UNREAD) for name in weights):
        places = {name for name in places if not name.endswith(UNREAD)}
    free = {_bare(name): name for name in places}
    if prefix := prefix_of(longer=free, shorter=weights):
        added[prefix] = None
        targets = {name: prefix + name for name in weights}
    elif prefix := prefix_of(longer=weights, shorter=free):
        stripped[prefix] = None
        targets = {name: name.removeprefix(prefix) for name in weights}
    else:
        return homeless
    for name, target in targets.items():
        result[free[target]] = state_dict[weights[name]]
    return [name for name in homeless if name not in weights.values()]


def _target(name: str, own: Collection[str]) -> tuple[str | None, str]:
    """The model's name for what a checkpoint calls so, None where it has none; and what was taken away for it."""
    rest, taken = name, ""
    while True:
        for candidate, more in ((rest, ""), (rest.replace(COMPILED, ""), COMPILED if COMPILED in rest else "")):
            if candidate in own:
                return candidate, taken + more
        prefix = next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None)
        if prefix is None:
            return None, taken
        rest, taken = rest.removeprefix(prefix), taken + prefix


def _bare(name: str) -> str:
    """A name without anything that a wrapper puts in front of it."""
    name = name.replace(COMPILED, "")
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def _rank(name: str) -> int:
    """An average stands behind the weights that it is an average of."""
    return int("ema" in name.split(".")[:-1])
