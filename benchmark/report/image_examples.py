"""Original, perturbation and adversarial image side by side, where a run kept its adversarial images."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmark.store.images import image_files, unpack_images
from benchmark.store.shown import ShownCase
from benchmark.store.store import Store
from model_zoo.files.atomic import atomic_write

SHOWN = 8
"""Images a model."""
SIDE = 64
"""Pixels of the shorter side of an image, at least; whole multiples of its own, so that no pixel is smoothed."""
GAP = 4
TEXT, LINE = 11, 14
"""Pixels of the letters, and from one line to the next."""
LETTERS = 11
"""Of a class's name, so that it is no wider than the picture."""
ABOVE, BELOW = 2 * LINE, 2 * LINE
"""Pixels of the text above and below the pictures."""


@dataclass(frozen=True)
class Broken:
    """An image that is right when clean, and the adversarial image that is not.

    Args:
        x, x_adv: (C, H, W) in [0, 1].
        label: its class; taken_for: that of the adversarial image, -1 where nobody stored it.
    """

    x: NDArray[np.float32]
    x_adv: NDArray[np.float32]
    label: int
    taken_for: int

    def distance(self, norm: str) -> float:
        """How far apart the two are, in pixel scale; under L0 in pixels, where no norm is known in L2."""
        if norm == "L0":
            return float((self.x_adv != self.x).any(0).sum())
        apart = (self.x_adv - self.x).ravel().astype(np.float64)
        return float(np.linalg.norm(apart, {"Linf": np.inf, "L1": 1}.get(norm, 2)))


def example_images(store: Store, suite: str, classes: Sequence[str]) -> dict[str, bytes]:
    """A PNG a model: its first broken images of the first white-box attack that kept any; a row each of the triple.

    The perturbation is drawn around grey: black and white are a whole epsilon down and up. Above stands the class of an
    image, below what the adversarial one was taken for and how far away it is, and at the top the attack.

    Args:
        classes: their names, in the order of the labels; none where these are their names.
    """
    found: dict[str, bytes] = {}
    for entry in store.shown(suite).cases:
        if entry.model not in found and not entry.source_model:
            broken = _broken(store, entry)
            if broken:
                found[entry.model] = _drawn(broken, entry, classes)
    return found


def _broken(store: Store, entry: ShownCase) -> list[Broken]:
    """The first images that are right when clean and broken by the attack, and what broke them.

    Damaged files have none: `store verify` names them.
    """
    stored = store.read(entry.key, entry.n)
    files = list(image_files(store.root / "cases" / entry.key))
    if stored is None or not files:
        return []
    verdicts = stored[0]
    classes = np.full(entry.n, -1) if verdicts.adversarial_class is None else verdicts.adversarial_class
    taken_for = dict(zip(verdicts.index.tolist(), classes.tolist(), strict=True))
    wanted = set(verdicts.index[verdicts.correct & ~verdicts.robust_any].tolist())
    found: list[Broken] = []
    for _, path in files:
        try:
            kept = unpack_images(path)
        except ValueError:
            continue
        rows = [row for row, index in enumerate(kept["index"].tolist()) if index in wanted]
        for row in rows[: SHOWN - len(found)]:
            index, label = int(kept["index"][row]), int(kept["y"][row])
            found.append(Broken(kept["x"][row], kept["x_adv"][row], label, taken_for[index]))
    return found


def _drawn(broken: Sequence[Broken], entry: ShownCase, classes: Sequence[str]) -> bytes:
    """The bytes of a PNG: a column an image."""
    x, x_adv = (np.stack([getattr(one, name) for one in broken]) for name in ("x", "x_adv"))
    shift = np.clip(0.5 + (x_adv - x) / (2 * min(max(entry.epsilon, 1e-12), 1.0)), 0, 1)
    scale = -(-SIDE // min(x.shape[-2:]))
    rows = [np.concatenate([_framed(image, scale) for image in images], 1) for images in (x, shift, x_adv)]
    pictures = np.concatenate(rows, 0)
    width = pictures.shape[1] // len(broken)
    sheet = Image.new("RGB", (pictures.shape[1], pictures.shape[0] + ABOVE + BELOW), "white")
    sheet.paste(Image.fromarray(pictures), (0, ABOVE))
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    text.text((GAP, 0), f"{entry.attack}, {entry.norm} {entry.epsilon:.4g}", "black", font)
    for column, one in enumerate(broken):
        lines = _named(one.taken_for, classes), f"{one.distance(entry.norm):.4g} away"
        place = column * width + width / 2
        text.text((place, ABOVE), _named(one.label, classes), "black", font, anchor="md")
        for line, words in enumerate(lines):
            text.text((place, ABOVE + pictures.shape[0] + line * LINE), words, "black", font, anchor="ma")
    buffer = io.BytesIO()
    sheet.save(buffer, format="png")
    return buffer.getvalue()


def _named(label: int, classes: Sequence[str]) -> str:
    """A class as people call it; "?" where it was not stored."""
    return "?" if label < 0 else (classes[label] if label < len(classes) else str(label))[:LETTERS]


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
