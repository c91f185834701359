"""The common corruptions of ImageNet-C, by the library imagecorruptions: the same of an image on every machine."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.errors import InputError

LIBRARY = "imagecorruptions-imaug"
COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Those that were meant for choosing a defense; they are no part of the mean error."""
CORRUPTIONS = (*COMMON, *EXTRA)
SEVERITIES = (1, 2, 3, 4, 5)
SEEDED = ("impulse_noise", "glass_blur")
"""Those that draw from a generator of their own, and take its seed."""
SMALLEST, PADDED = 28, 32
"""Smaller images are refused; smaller ones than the second are padded by black, and cut again afterwards."""


def require_library() -> ModuleType:
    """The library. Raises: InputError where it is not installed."""
    try:
        return importlib.import_module("imagecorruptions")
    except ImportError:
        raise InputError(f"common corruptions need the library {LIBRARY}; pip install '.[corruptions]'") from None


def require_size(x: Tensor) -> None:
    """Raise InputError for images (N, C, H, W) that the corruptions are not for."""
    channels, height, width = x.shape[1:]
    if min(height, width) < SMALLEST or channels not in (1, 3):
        raise InputError(
            f"common corruptions are for images of 1 or 3 channels and at least {SMALLEST} x {SMALLEST} pixels, got "
            f"{channels} x {height} x {width}; use mnist or cifar10, say"
        )


def corrupted(x: Tensor, index: Tensor, corruption: str, severity: int, *, seed: int) -> Tensor:
    """Images under a corruption.

    Images are rounded to 8 bits first, as the library takes them. Of a grey image one of the three channels is kept
    that the library answers with; their mean would have less noise. What it computes to no number is black.

    Args:
        x: (N, C, H, W) in [0, 1], not modified; C is 1 or 3.
        index: (N,) the images' indices in their dataset: with the seed, the corruption and its severity they are what
            draws are keyed by.
        corruption: one of `CORRUPTIONS`; severity: from 1 to 5.

    Returns: (N, C, H, W) multiples of 1/255.
    Source: Hendrycks and Dietterich, arXiv:1903.12261. The constants are those for ImageNet, not CIFAR-10-C's.
    """
    require_size(x)
    library, number = require_library(), CORRUPTIONS.index(corruption)
    channels, height, width = x.shape[1:]
    above, left = (max(PADDED - size, 0) // 2 for size in (height, width))
    under, right = max(PADDED - height, 0) - above, max(PADDED - width, 0) - left
    pixels = np.rint(255 * x.cpu().numpy()).astype(np.uint8).transpose(0, 2, 3, 1)
    padded = np.pad(pixels, ((0, 0), (above, under), (left, right), (0, 0)))
    made = []
    for image, place in zip(padded, index.tolist(), strict=True):
        with _numpy_seeded(seed, place, number, severity) as own:
            keywords = {"seed": own} if corruption in SEEDED else {}
            made.append(library.corruption_dict[corruption](_as_picture(image), severity, **keywords))
    answers = np.stack([_eight_bits(one) for one in made])[:, above : above + height, left : left + width, :channels]
    values = answers.astype(np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def _eight_bits(answer: object) -> NDArray[np.uint8]:
    """(H, W, 3) what the library answers, cut to whole numbers as it does itself."""
    values = np.nan_to_num(np.asarray(answer, dtype=np.float64), nan=0.0, posinf=255.0, neginf=0.0)
    return values.clip(0, 255).astype(np.uint8)


def _as_picture(image: NDArray[np.uint8]) -> object:
    from PIL import Image

    return Image.fromarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)


@contextmanager
def _numpy_seeded(*key: int) -> Iterator[int]:
    """NumPy's global generator, which the library draws from, seeded by a key, and left as it was; gives the seed."""
    before = np.random.get_state()
    own = int(np.random.SeedSequence([value % 2**64 for value in key]).generate_state(1)[0])
    np.random.seed(own)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's, about the libraries that it uses
            yield own
    finally:
        np.random.set_state(before)
