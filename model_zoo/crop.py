"""How an image is brought to a model's size: resized, and cut out of the middle."""

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Crop:
    """How an image is brought to a model's size.

    Args:
        size: pixels a side of the square that is cut out of the middle.
        resize: pixels of the shorter side, which is resized to before.
        interpolation: "bilinear", "bicubic", or another that torchvision's `InterpolationMode` names.
    """

    size: int
    resize: int
    interpolation: str = "bilinear"

    def of(self, image: Image.Image) -> Image.Image:
        """The square of an image, as torchvision's `Resize` and `CenterCrop` cut it."""
        from torchvision.transforms import InterpolationMode, functional  # slow to import

        resized = functional.resize(image, self.resize, InterpolationMode(self.interpolation))
        cut: Image.Image = functional.center_crop(resized, [self.size, self.size])
        return cut
