"""Numbers in words, singular where they are one."""


def counted(n: int, noun: str) -> str:
    """A number of things: "1 model", "3 models", "2 canaries"."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n} {noun if n == 1 else many}"


def points(number: float) -> str:
    """A number of percentage points: "1 point", "0.5 points"."""
    return f"{number:g} point{'' if number == 1 else 's'}"
