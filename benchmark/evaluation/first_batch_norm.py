"""What reaches a model's first batch norm, beside the statistics that it keeps of its training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Reached:
    """What reached the first batch norm of a model.

    Args:
        norm: that batch norm.
        sums: (3, C) how many values reached each channel, their sum and that of their squares.
        is_reached_once: whether each pass came to it once.
    """

    norm: Any
    sums: Tensor
    is_reached_once: bool


class _Stop(Exception):  # noqa: N818 - no error, but the way out of a pass
    """Ends a pass at the first batch norm, since what comes after it is not looked at."""


def reached_first(model: nn.Module, passes: Sequence[Callable[[], object]], *, stops: bool = False) -> Reached | None:
    """What reaches a model's first batch norm in some passes; None where there is none, or it is not reached.

    Args:
        passes: each makes one.
        stops: whether a pass ends there: for a model whose passes come to it once.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    kept: dict[int, list[Tensor]] = {}

    def keep(place: int, _norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not kept or place in kept:
            values = given[0].detach().float().movedim(1, -1).flatten(0, -2)
            total, squares = (part.sum(0, dtype=torch.float64) for part in (values, values.square()))
            kept.setdefault(place, []).append(torch.stack([torch.full_like(total, len(values)), total, squares]).cpu())
            if stops:
                raise _Stop

    hooks = [norm.register_forward_pre_hook(partial(keep, place)) for place, norm in enumerate(norms)]
    try:
        for one in passes if hooks else ():
            before = sum(map(len, kept.values()))
            try:
                one()
            except Exception:  # what a user's own model makes of ours
                if not stops or sum(map(len, kept.values())) == before:
                    raise
    finally:
        for hook in hooks:
            hook.remove()
    if not kept:
        return None
    place, seen = next(iter(kept.items()))
    return Reached(norms[place], torch.stack(seen).sum(0), len(seen) == len(passes))


def misfit(reached: Reached) -> float | None:
    """How far what reached a batch norm is from the statistics that it keeps.

    Returns: over its channels, the mean squared difference of the means in units of the kept variance, and the mean
        difference of the logarithms of the variances; None where these are no numbers.
    """
    (count, total, squares), norm = reached.sums, reached.norm
    mean = total / count
    kept: Tensor = norm.running_var.cpu() + norm.eps
    means_apart = ((mean - norm.running_mean.cpu()).square() / kept).mean()
    variances_apart = ((squares / count - mean.square() + norm.eps).log() - kept.log()).abs().mean()
    apart = float(means_apart + variances_apart)
    return apart if math.isfinite(apart) else None
