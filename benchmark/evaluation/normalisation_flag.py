"""Whether a model was trained on images normalised otherwise than they come: by its first batch norm, or its losses."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.models.normalisation import USUAL
from attacks.out_of_memory import is_out_of_memory
from attacks.precision import full_float32
from attacks.trial_size import trial_size
from benchmark.data.split import WIDER, Split
from benchmark.evaluation.first_batch_norm import misfit, reached_first

FIRST, FEWEST = 250, 20
"""How many images are looked at under every normalisation; and with how few nothing is said."""
FEWEST_LOSSES = 200
"""With how few images losses say nothing: a model that is wrong on a handful may be less sure of these by chance."""
MISFIT = 1.0
"""From where on what reaches a batch norm does not fit its statistics, in the unit of `misfit`."""
FITS = 0.5
"""The share of that misfit that another normalisation must come down to."""
TRIED = 8
"""How many images go through the whole of a model with batch norm; of all others a pass ends at the first of these."""
CALIBRATED, SIGNIFICANT = 0.15, 5.0
"""By how much the logarithm of the loss at its best temperature must fall, and how many standard errors that is."""
CLEAN, ATTACKED, STEP = 0.3, 0.8, 0.1
"""By how much the logarithm of the loss must fall, on the images and after a step of FGSM of that size, together."""
AS_THEY_ARE = torch.zeros(1), torch.ones(1)
NO_LOSS = 0.02
"""Losses below are as good as none: nothing is gained by a smaller one."""
TEMPERATURES = tuple(10 ** (exponent / 8) for exponent in range(-12, 17))


@dataclass(frozen=True)
class Asker:
    """How a model is asked about images (N, C, H, W) on the CPU, normalised once more by a mean and a std."""

    model: nn.Module
    batch_size: int
    device: torch.device

    def passes(self, x: Tensor, mean: Tensor, std: Tensor) -> list[Callable[[], Tensor | None]]:
        """One pass a batch, none of them made yet; each as `logits`."""
        size = min(self.batch_size, trial_size(x, FIRST))
        return [partial(self.logits, part, mean, std) for part in x.split(size)]

    def logits(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor | None:
        """(N, K) float64 on the CPU; None where it takes no such images."""
        try:
            with torch.no_grad(), full_float32():
                parts = [self.model(((part - mean) / std).to(self.device)) for part in x.split(self.batch_size)]
        except (ValueError, RuntimeError) as error:  # it may check its input
            if is_out_of_memory(error):
                raise
            return None
        logits = torch.cat(parts).double().cpu()
        return logits if logits.isfinite().all() else None

    def attacked(self, x: Tensor, y: Tensor, mean: Tensor, std: Tensor) -> Tensor | None:
        """The same of the images after a step of FGSM in pixel scale; None where there is no gradient either."""
        moved = []
        try:
            with torch.enable_grad(), full_float32():
                for part, label in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True):
                    point = part.clone().requires_grad_()
                    loss = F.cross_entropy(self.model(((point - mean) / std).to(self.device)).cpu(), label)
                    (gradient,) = torch.autograd.grad(loss, point)
                    moved.append((part + STEP * gradient.sign()).clamp(0, 1))
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            return None
        return self.logits(torch.cat(moved), mean, std)


def wanted_normalisation(model: nn.Module, split: Split, *, batch_size: int, device: torch.device) -> str:
    """The normalisation that a model wants its images to have beside its own; "" where it wants none.

    A model with batch norm is asked what reaches the first one, by which the statistics kept there fit or do not. Any
    other is asked for its losses. At the best temperature, the loss must fall significantly: a contrast that only makes
    a model surer of itself is made up for by the temperature. Or the loss as it is must fall by much, on the images and
    on those that one step of FGSM changes: adversarially trained models gain by contrast on the images alone.

    Args:
        split: images and labels on the CPU. Losses are those of the wider selection where there is one.

    Of fewer images than `FEWEST`, the wider selection counted, nothing is said; by losses of fewer than
    `FEWEST_LOSSES`.

    Returns: "imagenet", "cifar10", "mnist"; "own" for the images' own mean and std; "0.5" for 0.5 as both; "255" for
        pixels up to 255; "twice" where it does better with one of them undone.
    """
    wider = split.wider or split
    if len(wider) < FEWEST:
        return ""
    gains = _gains_of_fit(model, split if len(split) >= FEWEST else wider, batch_size, device)
    if gains is None:
        gains = _gains_of_loss(Asker(model, batch_size, device), wider)
    best = max(gains, key=gains.__getitem__, default="")
    return best.rpartition(" ")[2] if best and gains[best] > 0 else ""


def _gains_of_fit(model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Mapping[str, float] | None:
    """By normalisation, how much better the statistics of the first batch norm fit; None where there are none."""
    x = _spread(split.x, WIDER).to("cpu")
    few, asker = _spread(x, FIRST), Asker(model, batch_size, device)
    trial = reached_first(model, asker.passes(few[:TRIED], *AS_THEY_ARE))
    if trial is None:
        return None
    at_norm = reached_first(model, asker.passes(few, *AS_THEY_ARE), stops=trial.is_reached_once)
    before = None if at_norm is None else misfit(at_norm)
    if at_norm is None or before is None:
        return None
    tried = candidates(x) if before > MISFIT else {}
    again = partial(reached_first, model, stops=trial.is_reached_once)
    reached = {name: again(asker.passes(few, *other)) for name, other in tried.items()}
    after = {name: None if there is None else misfit(there) for name, there in reached.items()}
    return {name: FITS - value / before for name, value in after.items() if value is not None}


def _gains_of_loss(asker: Asker, split: Split) -> Mapping[str, float]:
    """By normalisation, how much better the losses are; of few images nothing."""
    if len(split) < FEWEST_LOSSES:
        return {}
    x, y = _spread(split.x, WIDER).to("cpu"), _spread(split.y, WIDER)
    few, labels, others = _spread(x, FIRST), _spread(y, FIRST), candidates(x)
    here = asker.logits(few, *AS_THEY_ARE)
    suspects = [name for name in others if max(falls(here, asker.logits(few, *others[name]), labels)[:2]) > 0]
    here = asker.logits(x, *AS_THEY_ARE) if suspects else None
    return {name: gain(asker, x, y, here, others[name]) for name in suspects}


def _spread(values: Tensor, most: int) -> Tensor:
    """At most so many rows, evenly spread: images may lie class by class."""
    return values[:: math.ceil(len(values) / most)]


def candidates(x: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
    """The means and stds that are tried on images (N, C, H, W), by name; the last two undo one."""
    axes = (0, 2, 3)
    mean, std = x.mean(axes, keepdim=True), x.std(axes, keepdim=True).clamp_min(1e-6)
    half = torch.full((1,), 0.5)
    usual = {
        name: (torch.tensor(one.mean).view(1, -1, 1, 1), torch.tensor(one.std).view(1, -1, 1, 1))
        for name, one in USUAL.items()
        if len(one.mean) == x.shape[1]
    }
    return {
        **usual,
        "own": (mean, std),
        "0.5": (half, half),
        "255": (torch.zeros(1), torch.full((1,), 1 / 255)),
        "own twice": (-mean / std, 1 / std),
        "0.5 twice": (-half / half, 1 / half),
    }


def gain(asker: Asker, x: Tensor, y: Tensor, here: Tensor | None, other: tuple[Tensor, Tensor]) -> float:
    """By how much a model does better behind another normalisation, to compare such by; 0 where that may be chance.

    Args:
        here: (N, K) its logits of the images x as they are.
    """
    clean, calibrated, errors = falls(here, asker.logits(x, *other), y)
    if calibrated >= CALIBRATED and errors >= SIGNIFICANT:
        return clean + calibrated
    if clean >= CLEAN:
        attacked = asker.attacked(x, y, *AS_THEY_ARE), asker.attacked(x, y, *other)
        if falls(*attacked, y)[0] >= ATTACKED:
            return clean + calibrated
    return 0.0


def falls(here: Tensor | None, there: Tensor | None, y: Tensor) -> tuple[float, float, float]:
    """By how much the logarithm of the loss falls from some logits (N, K) to others.

    Returns: that of the mean cross-entropy; of the same at the best temperatures; and the latter in standard errors.
    """
    if here is None or there is None:
        return -math.inf, -math.inf, -math.inf
    before, after = _calibrated(here, y), _calibrated(there, y)
    apart = before - after
    error = float(apart.std()) / math.sqrt(len(apart))
    clean = _log_ratio(F.cross_entropy(here, y), F.cross_entropy(there, y))
    return clean, _log_ratio(before.mean(), after.mean()), float(apart.mean()) / max(error, 1e-12)


def _calibrated(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) the cross-entropy of each image at the temperature at which their mean is least."""
    at = [F.cross_entropy(logits / temperature, y, reduction="none") for temperature in TEMPERATURES]
    return min(at, key=lambda losses: float(losses.mean()))


def _log_ratio(before: Tensor, after: Tensor) -> float:
    return math.log(max(float(before), NO_LOSS) / max(float(after), NO_LOSS))
