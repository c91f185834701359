"""A classifier and an attack on it by the protocols of `maite` (image classification), which need not be installed."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from attacks import attack
from attacks.errors import InputError
from attacks.models.modes import device_of

Images = Sequence[NDArray[np.float32]]
Batch = tuple[Sequence[ArrayLike], Sequence[ArrayLike], Sequence[Mapping[str, Any]]]


class MaiteModel:
    """A `Model`: images (C, H, W) in [0, 1] in, probabilities (K,) of each out; its normalisation belongs inside."""

    def __init__(self, model: torch.nn.Module, name: str = "model") -> None:
        self.metadata, self._model = {"id": name}, model

    def __call__(self, batch: Sequence[ArrayLike]) -> Images:
        with torch.no_grad():
            return list(self._model(_stacked(batch, self._model)).softmax(1).cpu().numpy())


class MaiteAttack:
    """An `Augmentation`: a batch's images become adversarial ones for a model; targets stay, metadata get the verdict.

    Args:
        model: as for `attacks.attack`: in eval mode, on its device.
        name, settings: of the attack, as for `attacks.attack`; settings have `epsilon`. Draws belong to a datum's id.

    Raises: InputError for settings that would attack another network than `MaiteModel` asks.
    """

    def __init__(self, model: torch.nn.Module, name: str, **settings: Any) -> None:
        if given := [word for word in ("mean", "std", "output", "source") if word in settings]:
            raise InputError(f"{given[0]}: expected a model that has it inside, as MaiteModel needs it; wrap the model")
        self.metadata, self._model, self._name, self._settings = {"id": f"{name} {settings}"}, model, name, settings

    def __call__(self, batch: Batch) -> tuple[Images, Sequence[ArrayLike], Sequence[dict[str, Any]]]:
        """Metadata get `correct` (when clean) and `robust`. Raises: InputError as `attacks.attack` does."""
        x = _stacked(batch[0], self._model)
        y = torch.tensor([int(np.argmax(target)) for target in batch[1]], device=x.device)
        index, order = torch.tensor([zlib.crc32(str(datum["id"]).encode()) for datum in batch[2]]).sort()
        found = attack(self._model, x[order], y[order], self._name, index=index, **self._settings)
        correct, robust, x_adv = (rows[order.argsort()] for rows in (found.correct, found.robust, found.x_adv))
        told = zip(batch[2], correct.tolist(), robust.tolist(), strict=True)
        return list(x_adv.cpu().numpy()), batch[1], [{**datum, "correct": c, "robust": r} for datum, c, r in told]


def _stacked(images: Sequence[ArrayLike], model: torch.nn.Module) -> torch.Tensor:
    """(N, C, H, W) float32 on the model's device."""
    x = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(x).to(device_of(model, default=torch.device("cpu")))
