"""The types of options' values: words to numbers, sizes and counts, or one line that says what was expected."""

import math
import re
from typing import Any

import click

from attacks.number import parse_number


class Number(click.ParamType[float]):
    """A number, or a fraction such as 8/255 or 0.5/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_number(str(value))
        except ValueError:
            self.fail(f"expected a number or a fraction such as 8/255, got {value!r}", param, ctx)


class Norm(click.Choice[str]):
    """A norm, or spatial-30deg and its like, whose angle `attacks.threat_model` checks."""

    def __init__(self) -> None:
        super().__init__(["Linf", "L2", "L1", "L0", "spatial-30deg"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value) if str(value).startswith("spatial-") else super().convert(value, param, ctx)


class ImageSize(click.ParamType[tuple[int, int]]):
    """SIZE, or SIZE:RESIZE: pixels a side of what is cut out, and of the shorter side that is resized to before."""

    name = "image size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,3})(?::([1-9]\d{0,3}))?", str(value).strip())
        size, resize = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not size or resize < size:
            self.fail(f"expected pixels such as 224, or 224:256 with the larger last, got {value!r}", param, ctx)
        return size, resize


class FiniteRange(click.FloatRange):
    """A number within bounds; NaN is within none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        converted: float = super().convert(value, param, ctx)
        if not math.isfinite(converted):
            self.fail(f"expected a finite number, got {value!r}", param, ctx)
        return converted


class Examples(click.ParamType[dict[str, int | None]]):
    """How many images: all or N for every attack (under ""), and ATTACK=N for some."""

    name = "examples"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int | None]:
        wanted: dict[str, int | None] = {}
        for word in str(value).split(","):
            name, _, count = word.strip().rpartition("=")
            if count != "all" and not re.fullmatch("[1-9][0-9]{0,8}", count):
                self.fail(f"expected all or a positive whole number, got {count!r}", param, ctx)
            wanted[name] = None if count == "all" else int(count)
        return wanted
