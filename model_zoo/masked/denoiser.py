"""A purifier in PixelDefend's place: a small denoising autoencoder, whose image has whole grey levels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.bpda import Bpda
from model_zoo.masked.shielded import Shielded

LEVELS = 255


class Denoiser(nn.Module):
    """An image without the noise that the autoencoder takes it to have, rounded to grey levels.

    Args:
        channels: of the image; sigma: of the Gaussian noise that it learns to remove.

    Source: Song et al., arXiv:1710.10766 (PixelDefend: a model of images moves the pixels, whole levels, to a likelier
    image), with the autoencoder of Meng and Chen, arXiv:1705.09064 (MagNet), Section 4.2.
    Deviations: it stands for the pixel network, which would cost a pass a pixel.
    """

    def __init__(self, channels: int, sigma: float, width: int = 24) -> None:
        super().__init__()
        self.sigma = sigma
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1], of an even size, to the same in steps of 1/255; the gradient of rounding is zero."""
        return (LEVELS * self.smooth(x)).round() / LEVELS

    def smooth(self, x: Tensor) -> Tensor:
        """The same before it is rounded."""
        denoised: Tensor = self.layers(x)
        return denoised.sigmoid()

    def own_loss(self, x: Tensor, _y: Tensor) -> Tensor:
        """What it learns beside the network: the mean squared distance from the image, of the image with noise."""
        return F.mse_loss(self.smooth(x + self.sigma * torch.randn_like(x)), x)


def build(network: nn.Module, _classes: int, shape: tuple[int, int, int], sigma: float) -> nn.Module:
    """The network behind the purifier; each is trained by itself."""
    return Shielded(Denoiser(shape[0], sigma), network)


def surrogate(module: nn.Module) -> nn.Module:
    """BPDA: the purifier's values, and its gradient before it rounds."""
    assert isinstance(module, Shielded)
    purifier = module.transform
    assert isinstance(purifier, Denoiser)
    return Shielded(Bpda(purifier, purifier.smooth), module.network)
