"""Tables by name: built from entries that have one, and asked with an answer that helps when a name is unknown."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Protocol, TypeVar

from attacks.errors import InputError


class Named(Protocol):
    """What a table may hold."""

    @property
    def name(self) -> str: ...


T = TypeVar("T")
N = TypeVar("N", bound=Named)


def by_name(entries: Iterable[N], kind: str) -> dict[str, N]:
    """A table of entries by their names, in the order given.

    Args:
        kind: as for `lookup`.

    Raises:
        InputError: two entries have the same name.
    """
    table: dict[str, N] = {}
    for entry in entries:
        if entry.name in table:
            raise InputError(f"{kind} {entry.name!r} is registered twice; give one of them another name")
        table[entry.name] = entry
    return table


def lookup(name: str, table: Mapping[str, T], kind: str) -> T:
    """The entry of `table` called `name`.

    Args:
        kind: what the table holds, in the singular, for the message ("attack", "architecture").

    Raises:
        InputError: no such name; the message gives the nearest one, if any is near, and all known ones.
    """
    if name in table:
        return table[name]
    known = {key.lower(): key for key in table}
    near = get_close_matches(name.lower(), known, n=1)
    guess = f"did you mean {known[near[0]]!r}? " if near else ""
    raise InputError(f"unknown {kind} {name!r}; {guess}known: {', '.join(table)}")


def check_name(name: object, what: str) -> str:
    """A name that the user gives, which becomes a file's. Raises: InputError for one that could lead elsewhere."""
    if not isinstance(name, str) or name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"{what} must be letters, digits, '.', '_' and '-' (and not 'all'), got {name!r}")
    return name
