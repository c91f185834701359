"""Numbers as people write them on a command line."""

import re
from fractions import Fraction


def parse_number(text: str) -> float:
    """A finite number, as a decimal or a fraction of two: 0.3, 1e-3, 8/255, 0.5/255. Raises: ValueError else."""
    if re.search(r"e[+-]?\d{4}", text, re.IGNORECASE):  # which would be computed to its last digit first
        raise ValueError(f"{text} is too large or too small")
    numerator, slash, denominator = text.partition("/")
    if "/" in denominator:
        raise ValueError(f"{text} is more than one fraction")
    try:
        return float(Fraction(numerator) / Fraction(denominator if slash else 1))
    except (ZeroDivisionError, OverflowError):
        raise ValueError(f"{text} is no finite number") from None
