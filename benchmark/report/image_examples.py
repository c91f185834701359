"""Original, perturbation and adversarial image side by side, where a run kept its adversarial images."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark.store.images import image_files, unpack_images
from benchmark.store.shown import ShownCase
from benchmark.store.store import Store
from model_zoo.files.atomic import atomic_write

SHOWN = 8
"""Images a model."""
SIDE = 64
"""Pixels of the shorter side of an image, at least; whole multiples of its own, so that no pixel is smoothed."""
GAP = 4


def example_images(store: Store, suite: str) -> dict[str, bytes]:
    """A PNG a model: its first broken images of the first white-box attack that kept any; a row each of the triple.

    The perturbation is drawn around grey: black and white are a whole epsilon down and up.
    """
    found: dict[str, bytes] = {}
    for entry in store.shown(suite).cases:
        if entry.model not in found and not entry.source_model:
            triples = _broken(store, entry)
            if len(triples):
                found[entry.model] = _drawn(triples, entry.epsilon)
    return found


def _broken(store: Store, entry: ShownCase) -> NDArray[np.float32]:
    """(M, 2, C, H, W): the first M images that are right when clean and broken by the attack, and what broke them.

    Damaged files have none: `store verify` names them.
    """
    stored = store.read(entry.key, entry.n)
    files = list(image_files(store.root / "cases" / entry.key))
    if stored is None or not files:
        return np.zeros((0, 2, 1, 1, 1), np.float32)
    verdicts = stored[0]
    wanted = set(verdicts.index[verdicts.correct & ~verdicts.robust_any].tolist())
    pairs: list[NDArray[np.float32]] = []
    for _, path in files:
        try:
            kept = unpack_images(path)
        except ValueError:
            continue
        rows = [row for row, index in enumerate(kept["index"].tolist()) if index in wanted]
        pairs += [np.stack([kept["x"][row], kept["x_adv"][row]]) for row in rows[: SHOWN - len(pairs)]]
    return np.stack(pairs) if pairs else np.zeros((0, 2, 1, 1, 1), np.float32)


def _drawn(triples: NDArray[np.float32], epsilon: float) -> bytes:
    """The bytes of a PNG: a column an image."""
    x, x_adv = triples[:, 0], triples[:, 1]
    shift = np.clip(0.5 + (x_adv - x) / (2 * max(epsilon, 1e-12)), 0, 1)
    scale = -(-SIDE // min(x.shape[-2:]))
    rows = [np.concatenate([_framed(image, scale) for image in images], 1) for images in (x, shift, x_adv)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows, 0)).save(buffer, format="png")
    return buffer.getvalue()


def _framed(image: NDArray[np.float32], scale: int) -> NDArray[np.uint8]:
    """(C, H, W) in [0, 1] to (H', W', 3) grey levels, enlarged, with a white frame."""
    colour = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    large = np.kron(np.rint(255 * colour).astype(np.uint8), np.ones((scale, scale, 1), np.uint8))
    return np.pad(large, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def write_examples(images: Mapping[str, bytes], folder: Path) -> None:
    """Write FOLDER/MODEL.png, and remove those of models that have none any more."""
    for model, content in images.items():
        atomic_write(folder / f"{model}.png", content)
    for path in folder.glob("*.png"):
        if path.stem not in images:
            path.unlink()
