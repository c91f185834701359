"""Adversarial examples that were found, kept beside the verdict store, to be tried first on the next model.

examples/KEY/NAME.npz   index (M,) and the points (M, C, H, W) that broke those images in the case of that key

A cache: it may be deleted at any time, and a damaged file is passed over. Points are judged anew on every model.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attacks.judge import judge
from attacks.oracle import Classifier
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from model_zoo.files.atomic import atomic_write


@dataclass(frozen=True)
class Examples:
    """Points under one folder."""

    root: Path

    def keep(self, key: str, index: Tensor, points: Tensor) -> None:
        """Write the points that are numbers; NaN stands where an image was not broken."""
        found = ~points.flatten(1).isnan().any(1).cpu()
        if not found.any():
            return
        arrays = {"index": index.cpu()[found].numpy(), "points": points.cpu()[found].numpy()}
        name = hashlib.sha256(arrays["index"].tobytes()).hexdigest()[:32]
        path = self.root / key / f"{name}.npz"
        if not path.exists():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **arrays)
            atomic_write(path, buffer.getvalue())

    def of(self, key: str) -> tuple[Tensor, Tensor]:
        """All points of a case: the images' index (M,), and the points (M, C, H, W); an image may be there twice."""
        parts = []
        for path in sorted((self.root / key).glob("*.npz")):
            try:
                with np.load(io.BytesIO(path.read_bytes())) as arrays:
                    parts.append((torch.from_numpy(arrays["index"]), torch.from_numpy(arrays["points"])))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
        if not parts:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        return torch.cat([index for index, _ in parts]), torch.cat([points for _, points in parts])


def broken_by(
    points: tuple[Tensor, Tensor], classifier: Classifier, images: Split, threat: ThreatModel, hardware: Hardware
) -> tuple[Tensor, Tensor]:
    """Which of some images are misclassified at points known from another model.

    Returns: (N,) bool, an image is broken; (N,) int64, how many forward passes were spent on it.
    """
    index, x_adv = points
    broken, passes = torch.zeros(len(images), dtype=torch.bool), torch.zeros(len(images), dtype=torch.int64)
    known = torch.isin(index, images.index)
    if not known.any():
        return broken, passes
    rows = torch.searchsorted(images.index, index[known])
    x, y, x_adv = (tensor.to(hardware.device) for tensor in (images.x[rows], images.y[rows], x_adv[known]))
    inside = threat.contains(x_adv, x)
    correct = judge(classifier, x[inside], y[inside], x_adv[inside], threat, batch_size=hardware.batch_size).cpu()
    rows = rows[inside.cpu()]
    broken[rows[~correct]] = True
    passes.index_add_(0, rows, torch.ones_like(rows))
    return broken, passes
