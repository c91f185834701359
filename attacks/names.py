"""Looking a name up in a table, with an answer that helps when it is not there."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from attacks.errors import InputError

T = TypeVar("T")


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
