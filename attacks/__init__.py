"""Attacks: tensors and callables alone. `attack` runs any of them on a model; it imports nothing above."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.api import AttackResult, attack

__all__ = ["AttackResult", "attack"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'attacks' has no attribute {name!r}")
    from attacks import api  # loads torch, which help and mistakes on the command line do without

    return getattr(api, name)
