"""One image of a user's own: refused where its pixels would have to be guessed, else resized, cropped and decoded."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from attacks.errors import InputError, one_line
from model_zoo.crop import Crop

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_PLAIN = ("1", "L", "P", "RGB")
_GREY = ("1", "L", "LA")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""PIL's ways with a damaged file."""


@dataclass(frozen=True)
class Preparation:
    """What becomes of an image before a model sees it, as torchvision's `Resize` and `CenterCrop` do it.

    Args:
        channels: 1 for grey levels, 3 for RGB.
        height, width: pixels of what a model sees.
        crop: how an image is brought to these; None for images that must have them already.
        may_lose_colour: whether grey levels are what the user asked for, of coloured images, too.
        turns: whether a picture is turned as its camera says, which torchvision's `ImageFolder` leaves and `datasets`
            does.
    """

    channels: int
    height: int
    width: int
    crop: Crop | None = None
    may_lose_colour: bool = False
    turns: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def read(self, file: Path | IO[bytes], name: str) -> Tensor:
        """The pixels of an image, uint8 (C, H, W).

        Args:
            file: it is read from; name: what an error calls it.

        Raises: InputError for what is no image, and for one whose pixels would have to be guessed: transparent, with
            more than 8 bits a channel, in another colour space, animated, or of another size.
        """
        try:
            with Image.open(file) as opened:
                _refuse(opened, name)
                image = ImageOps.exif_transpose(opened) if self.turns else opened
                if self.crop is None and image.size != (self.width, self.height):
                    raise InputError(
                        f"{name}: expected {self.width}x{self.height} pixels, as the first image has, got "
                        f"{image.width}x{image.height}; bring all to one size by --image-size"
                    )
                if self.channels == 1 and image.mode not in _GREY and not self.may_lose_colour:
                    raise InputError(
                        f"{name}: expected grey levels, as the first image has, got {image.mode}; say by --channels 3 "
                        "that all are RGB, or by --channels 1 that all are to be grey"
                    )
                converted = image.convert("L" if self.channels == 1 else "RGB")
                pixels = np.array(self.crop.of(converted) if self.crop else converted)
        except InputError:
            raise
        except _BROKEN as error:
            raise InputError(
                f"{name}: expected an image, could not read it ({one_line(error)[:160]}); replace it"
            ) from None
        return torch.from_numpy(pixels.reshape(self.height, self.width, self.channels)).permute(2, 0, 1)


def preparation(
    first: Path | IO[bytes], name: str, *, crop: Crop | None, channels: int | None, turns: bool = False
) -> Preparation:
    """How images are brought to one shape.

    Args:
        first: the file of an image, called name; where there is no crop or no number of channels, all must have its.
        crop: what is cut out of the middle, and the resizing before.
        turns: as for `Preparation`.

    Raises: InputError as `Preparation.read`.
    """
    try:
        with Image.open(first) as image:
            _refuse(image, name)
            found = (ImageOps.exif_transpose(image) if turns else image).size
            is_grey = image.mode in _GREY
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(
            f"{name}: expected an image, could not read it ({one_line(error)[:160]}); replace it"
        ) from None
    width, height = (crop.size, crop.size) if crop else found
    is_grey = channels == 1 if channels else is_grey
    return Preparation(1 if is_grey else 3, height, width, crop, may_lose_colour=channels == 1, turns=turns)


def _is_deep(image: Image.Image) -> bool:
    """Whether a file has 16 bits a channel, of which PIL keeps 8 without a word where it is coloured."""
    return any(re.search(";16[BLN]", str(tile[3])) for tile in getattr(image, "tile", ()))


def is_turned(file: Path) -> bool:
    """Whether a picture says that it is to be turned or mirrored when it is shown; not where it cannot be read."""
    try:
        with Image.open(file) as image:
            return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except _BROKEN:
        return False


def _refuse(image: Image.Image, name: str) -> None:
    """Raise InputError for an image whose pixels would have to be guessed."""
    got, remedy = "", ""
    if getattr(image, "n_frames", 1) > 1:
        got, remedy = f"an animation of {image.n_frames} frames", "save one of them"  # type: ignore[attr-defined]
    elif image.mode.startswith(("I", "F")) or _is_deep(image):
        got, remedy = f"one of PIL mode {image.mode}, with more than 8 bits a channel", "convert it to 8 bits"
    elif image.mode in _WITH_ALPHA or "transparency" in image.info:
        least = image.convert("RGBA").getchannel("A").getextrema()[0]
        if least != 255:
            got, remedy = "one with transparent pixels", "put it on a background"
    elif image.mode not in _PLAIN:
        got, remedy = f"one in {image.mode}", "convert it to RGB"
    if got:
        raise InputError(f"{name}: expected a still image in grey levels or RGB, got {got}; {remedy}")
