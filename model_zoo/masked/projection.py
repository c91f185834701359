"""A purifier in Defense-GAN's place: the nearest image that a small decoder can make, found by gradient descent."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.bpda import Bpda, zero
from model_zoo.masked.shielded import Shielded, with_stand_in

LATENT, RESTARTS, MOMENTUM = 12, 4, 0.7
STEP_SIZE, KL_WEIGHT = 0.05, 0.002


class Projection(nn.Module):
    """The image of a decoder that is nearest to an image, by gradient descent on its latent vector from fixed starts.

    Args:
        shape: (C, H, W); steps: of the descent from each start.

    Source: Samangouei, Kabkab and Chellappa, arXiv:1805.06605, Section 4 (200 steps from 10 starts, momentum 0.7).
    Deviations: the decoder is a variational autoencoder's (Kingma and Welling, arXiv:1312.6114), not a GAN's; the
    starts are the same for all images; fewer of both.
    """

    def __init__(self, shape: tuple[int, int, int], steps: int, width: int = 96) -> None:
        super().__init__()
        self.shape, self.steps = shape, steps
        pixels = math.prod(shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid())
        self.starts: Tensor
        starts = torch.randn((RESTARTS, LATENT), generator=torch.Generator().manual_seed(0))
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same. It takes gradients itself, of its own distance alone."""
        target = x.detach().flatten(1).repeat_interleave(RESTARTS, 0)
        z = self.starts.repeat(len(x), 1)
        velocity = torch.zeros_like(z)
        for _ in range(self.steps):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                distance = (self.decoder(z) - target).square().sum()
                (slope,) = torch.autograd.grad(distance, z)
            velocity = MOMENTUM * velocity + slope
            z = z.detach() - STEP_SIZE * velocity
        made = self.decoder(z)
        nearest = (made - target).square().sum(1).view(-1, RESTARTS).argmin(1)
        each: Tensor = made.view(len(x), RESTARTS, -1)
        best = each[torch.arange(len(x), device=x.device), nearest]
        return best.view_as(x)

    def own_loss(self, x: Tensor, _y: Tensor) -> Tensor:
        """What encoder and decoder learn beside the network: the evidence lower bound, its divergence weighed less."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        divergence: Tensor = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        distance = F.mse_loss(self.decoder(z), x.flatten(1))
        return distance + KL_WEIGHT * divergence


def build(network: nn.Module, _classes: int, shape: tuple[int, int, int], steps: float) -> nn.Module:
    """The network behind the projection, which gives no gradient; each is trained by itself."""
    return Shielded(Bpda(Projection(shape, int(steps)), zero), network)


def surrogate(module: nn.Module) -> nn.Module:
    """BPDA with the identity: the projection leaves an image of the data almost the same.

    Source: Athalye, Carlini and Wagner, arXiv:1802.00420.
    """
    return with_stand_in(module)
