"""The reference AutoAttack (package pyautoattack) behind our signature: the oracle for every other strong attack."""

import contextlib
import io
import logging
from collections.abc import Sequence

import torch
from pyautoattack import AutoAttack
from torch import Tensor

from attacks.errors import InputError
from attacks.oracle import CountingClassifier
from attacks.threat_model import ThreatModel

FEWEST_CLASSES = 4
"""The targeted DLR loss of its second member divides by a difference with the third and fourth logits."""


def require_data(shape: Sequence[int], classes: int, norm: str, *, members: Sequence[str] = ()) -> None:
    """Raise InputError for what the reference fails on: few classes, and sizes that its L2 and L1 starts overrun.

    That start has rows of tiles whose side is a fifth of the height; the last of them may lie beyond the edge.

    Args:
        shape: (C, H, W) of an image.
        members: as for `autoattack`.
    """
    remedy = "apgd-l1,apgd-l1-t" if norm == "L1" else "square" if tuple(members) == ("square",) else "autoattack"
    if classes < FEWEST_CLASSES:
        raise InputError(
            f"the reference AutoAttack needs at least {FEWEST_CLASSES} classes, got {classes}; use {remedy}"
        )
    height, width = shape[1:]
    if norm == "Linf" or (members and "square" not in members) or _tiles(height, width):
        return
    raise InputError(
        f"the reference's Square cannot tile images of {height} x {width} pixels under {norm}; use {remedy}, or "
        "images of another height"
    )


def _tiles(height: int, width: int) -> bool:
    """Whether all tiles lie within the image; where each is one pixel, those beyond do nothing."""
    side = height // 5
    first = (height - 5 * side) // 2
    return side == 1 or (side > 1 and all(first + length // side * side <= length for length in (height, width)))


def autoattack(
    classifier: CountingClassifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    version: str,
    members: Sequence[str] = (),
) -> Tensor:
    """The standard ensemble: APGD-CE, targeted APGD-DLR, targeted FAB, Square; each on the survivors of the others.

    Its random draws are keyed by place in the batch, so the caller must not let the batch depend on anything but the
    case. Its targets are at most the classes that there are.

    Args:
        x: (N, C, H, W) in [0, 1].
        y: (N,) class indices.
        seed: of its random draws; the global generator is left as it was.
        version: of the ensemble: "standard", "plus" or "rand"; it sets iterations and restarts.
        members: run these only, by the package's names ("apgd-ce", "fab-t", ...); all of the version's if empty.

    Returns: (N, C, H, W), the first adversarial example found for an image, or the image itself.
    Raises: InputError as `require_data`.
    Source: Croce and Hein, arXiv:2003.01690, Section 5.
    """
    with torch.no_grad():
        classes = classifier(x[:1]).shape[1]
    require_data(x.shape[1:], classes, threat.norm, members=members)
    logging.getLogger("auto-attack").setLevel(logging.ERROR)  # its advice on defenses; ours are the flags
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), contextlib.redirect_stdout(io.StringIO()):
        ensemble = AutoAttack(
            classifier, norm=threat.norm, eps=threat.epsilon, seed=seed, version=version, device=str(x.device)
        )
        if members:
            ensemble.attacks_to_run = list(members)
        for targeted in (ensemble.apgd_targeted, ensemble.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
        x_adv: Tensor = ensemble.run_standard_evaluation(x, y, batch_size=len(x))[0]
    return x_adv.detach()
