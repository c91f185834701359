"""Numbers as people write them on a command line."""

import re
from fractions import Fraction


def parse_number(text: str) -> float:
    """A finite number, as a decimal or a fraction: 0.3, 1e-3, 8/255. Raises: ValueError for anything else."""
    if re.search(r"e[+-]?\d{4}", text, re.IGNORECASE):  # which would be computed to its last digit first
        raise ValueError(f"{text} is too large or too small")
    try:
        return float(Fraction(text))
    except (ZeroDivisionError, OverflowError):
        raise ValueError(f"{text} is no finite number") from None
