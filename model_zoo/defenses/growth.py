"""How much of its budget a certified defense trains against: bounds of the whole ball teach a fresh network nothing."""

from attacks.errors import InputError
from model_zoo.defenses.context import TrainingContext


def grown(ctx: TrainingContext, clean_start: float, ramp: float) -> float:
    """0 during the clean start, then linearly to 1, which the last epoch always has if the two take no longer than it.

    Args:
        clean_start, ramp: lengths of the two phases, as fractions of all epochs; at least 0, at most 1 together.
    """
    if not (clean_start >= 0 and ramp >= 0 and clean_start + ramp <= 1):
        raise InputError(
            "clean_start and ramp must be fractions of all epochs, at most 1 together, "
            f"got {clean_start:g} and {ramp:g}"
        )
    since = ctx.epoch - clean_start * ctx.epochs
    return min(1.0, max(0.0, since / max(ramp * ctx.epochs, 1e-9)))


def linf_epsilon(ctx: TrainingContext) -> float:
    """The radius to bound within. Raises: InputError for another norm, since the bounds are those of Linf balls."""
    if ctx.threat.norm != "Linf":
        raise InputError(f"this defense bounds Linf balls, got the norm {ctx.threat.norm}; use a suite with Linf")
    return ctx.threat.epsilon
