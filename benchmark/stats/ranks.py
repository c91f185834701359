"""Ranks that are shared where nothing tells two apart."""

from collections.abc import Callable, Sequence

SEPARATED = 0.05
"""Below this p of their difference two models, or two defenses, are told apart."""


def ranks(names: Sequence[str], told_apart: Callable[[str, str], bool]) -> list[int]:
    """The rank of each name, given from the best to the worst.

    It is that of the best one before it, unless the two are told apart; then it is its place.
    """
    found: list[int] = []
    leader = ""
    for place, name in enumerate(names, 1):
        if not leader or told_apart(leader, name):
            leader = name
            found.append(place)
        else:
            found.append(found[-1])
    return found
