"""NumPy's numbers in a checkpoint, such as the best accuracy: read as Python's, without any code of NumPy's."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np


class NumberType:
    """The dtype of a pickled number.

    Raises: ValueError for one that is not of numbers.
    """

    def __init__(self, text: str, *_: Any) -> None:
        if not isinstance(text, str) or not re.fullmatch("[biuf][1248]", text):
            raise ValueError(f"expected the type of a number, got {text!r:.40}")
        self.text = text
        self.order = ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else ""


def number_of(kind: NumberType, data: bytes) -> float | int | bool:
    """The number of a type that bytes stand for. Raises: ValueError for more or fewer bytes than it has."""
    (value,) = np.frombuffer(data, np.dtype(kind.order + kind.text)).tolist()
    number: float | int | bool = value
    return number


NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    NumberType,
    (NumberType, "numpy.dtype"),
    (number_of, "numpy.core.multiarray.scalar"),
    (number_of, "numpy._core.multiarray.scalar"),
]
"""What torch's reader takes in place of NumPy's own functions, by the names that a pickle has for them."""
