"""What the gate asks, and how an answer comes out."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """REGRESSION: has robust accuracy fallen? THRESHOLD: is it below what is required of all models?

    CANARY: does the attack break less than it did? SANITY: is the model worth attacking, and to be trusted?
    SHOWN: is the attack that was diagnosed shown to work on the model?
    """

    REGRESSION = "regression"
    THRESHOLD = "threshold"
    CANARY = "canary"
    SANITY = "sanity"
    SHOWN = "shown"


class Outcome(StrEnum):
    """OPEN: not decided yet, or not when the time was up. VOID: without meaning, since the attack became weaker.

    INCONCLUSIVE: all images have come in and show more than is allowed, which may be chance.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    OPEN = "open"
    VOID = "void"


@dataclass(frozen=True)
class Question:
    """One question about one subject, which is a model under test or a canary, by name."""

    kind: Kind
    subject: str
