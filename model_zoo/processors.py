"""What an image processor of transformers does to images: read from its settings, and seen on pictures put through it.

Its classes fill in settings that a file leaves out, and some use theirs in ways of their own. So the real class reads
the file, and what the settings come to is believed only where pictures come out of it like that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attacks.errors import one_line
from attacks.models.normalisation import Normalisation
from model_zoo.about import About
from model_zoo.crop import Crop

SETTINGS = "preprocessor_config.json"
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of PIL's numbers."""
COLOURS = ((0, 0, 0), (255, 255, 255), (255, 128, 0))
LARGE = (640, 480)
"""Width and height of a picture; no square, so that squashing shows."""
LEVIT = 256 / 224
"""By so much LeViT's processor enlarges the shorter side that it is given."""


def read_processor(folder: Path, auto: Any) -> About:
    """What the processor in a folder does.

    Args:
        auto: transformers' AutoImageProcessor.

    Returns: its normalisation, or in `unlike` why that is none; its crop; its interpolation. Nothing without a file.
    """
    if not (folder / SETTINGS).is_file():
        return About()
    try:
        processor = auto.from_pretrained(str(folder), trust_remote_code=False)
        given: dict[str, Any] = processor.to_dict()
        normalisation, squashing = _normalisation(given), _interpolation(given)
        if not _normalises(processor, normalisation):
            named = type(processor).__name__
            return About(squashing=squashing, unlike=f"{named} does other things to colours than its settings say")
        crop = next((crop for crop in _crops(given, squashing) if _cuts(processor, normalisation, crop)), None)
    except Exception as error:  # it raises in the ways of every class of transformers
        return About(unlike=f"its processor cannot be used: {one_line(error)[:160]}")
    return About(normalisation, crop, squashing=squashing)


def _normalisation(given: Mapping[str, Any]) -> Normalisation | None:
    """The mean and std, for pixels in [0, 1], that settings come to; None where both change nothing.

    A processor multiplies pixels up to 255 by a factor, may then subtract 1 (`rescale_offset`), subtracts the mean,
    divides by the std, and may do this a second time (`include_top`).
    """
    scale = round(255 * given.get("rescale_factor", 1 / 255), 9) if given.get("do_rescale") else 255.0
    offset = float(bool(given.get("do_rescale") and given.get("rescale_offset")))
    own_mean, own_std = _each(given.get("image_mean") or 0.0), _each(given.get("image_std") or 1.0)
    mean, std = (own_mean, own_std) if given.get("do_normalize") else (_each(0.0), _each(1.0))
    again = own_std if given.get("include_top") else [1.0] * len(std)
    means = tuple(round((offset + value) / scale, 12) for value in mean)
    stds = tuple(round(value * other / scale, 12) for value, other in zip(std, again, strict=True))
    return None if set(means) == {0.0} and set(stds) == {1.0} else Normalisation(means, stds)


def _each(value: float | Sequence[float]) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(one) for one in value]


def _normalises(processor: Any, normalisation: Normalisation | None) -> bool:
    """Whether black, white and coloured pictures come out as a normalisation has them."""
    channels = len(normalisation.mean) if normalisation else 3
    for colour in COLOURS:
        picture = Image.new("RGB", LARGE, colour) if channels == 3 else Image.new("L", LARGE, colour[1])
        out = _put_through(processor, picture)
        levels = torch.tensor(colour if channels == 3 else colour[1:2]) / 255
        expected = _normalised(levels.view(1, -1, 1, 1), normalisation).flatten()
        centre = out[:, out.shape[1] // 2, out.shape[2] // 2]
        if centre.shape != expected.shape or not torch.allclose(centre, expected, rtol=1e-3, atol=1e-3):
            return False
    return True


def _normalised(x: Tensor, normalisation: Normalisation | None) -> Tensor:
    out: Tensor = normalisation.layer()(x) if normalisation else x
    return out


def _put_through(processor: Any, picture: Image.Image) -> Tensor:
    out: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    return out.float()


def _interpolation(given: Mapping[str, Any]) -> str:
    number = given.get("resample")
    return "bilinear" if number is None else INTERPOLATIONS[int(number)]


def _crops(given: Mapping[str, Any], interpolation: str) -> list[Crop]:
    """What may be meant by a processor's sizes."""
    side, cut = _side(given.get("size"), "shortest_edge"), _side(given.get("crop_size"), "height")
    crops = []
    if side and given.get("crop_pct"):
        crops.append(Crop(side, int(side / given["crop_pct"]), interpolation))
    if side and cut and given.get("do_center_crop"):
        crops += [Crop(cut, side, interpolation), Crop(cut, int(LEVIT * side), interpolation)]
    return crops


def _side(size: Any, key: str) -> int | None:
    return size.get(key) if isinstance(size, Mapping) else size


def _cuts(processor: Any, normalisation: Normalisation | None, crop: Crop) -> bool:
    """Whether a picture comes out as a crop has it, but for how each resizes: it grows lighter rightwards and down."""
    width, height = LARGE
    right = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    levels = np.stack([right, down, right], axis=2).round().astype(np.uint8)
    picture = Image.fromarray(levels)
    if normalisation and len(normalisation.mean) == 1:
        picture = Image.fromarray(levels[:, :, 0])
    out = _put_through(processor, picture)
    x = torch.from_numpy(np.array(crop.of(picture)).reshape(crop.size, crop.size, -1)).permute(2, 0, 1) / 255
    expected = _normalised(x[None], normalisation)[0]
    if out.shape != expected.shape:
        return False
    spread = (expected.amax() - expected.amin()).clamp(min=1e-12)
    return bool(((out - expected).abs().mean() / spread) < 0.004)
