"""A detector: images whose features have a high local intrinsic dimension are rejected."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.masked.ring_buffer import oldest_rows

MINIBATCH, LARGEST_STEP = 100, 0.3
"""How many clean images distances are to; and of the one-step attack that is learnt from."""
LEAST_RATIO, LEAST_SUM = 0.01, 0.01
"""A distance counts as so much of the k-th at least, below which it is rounding; and no estimate exceeds 100 k."""


class Lid(nn.Module):
    """A network that rejects an image by a logistic regression on the local intrinsic dimensions of its layers.

    The dimension is estimated by the distances to the k nearest of a minibatch of clean images. The logit of "rejected"
    is the largest of the classes' plus the log-odds that the image is adversarial. The detector runs outside of
    autograd, as the authors' does.

    Args:
        network: whose layers are the image and the output of each module without children.
        shape: (C, H, W) of the images. k: how many neighbours.

    Read as in TRADES's Table 5 (accuracy 5 at 0.031), whose figure is that of Athalye et al.: of plain PGD's images on
    an undefended network 4.4% are rejected (their lid.ipynb), and these are the ones that withstand. There the 2.6% of
    clean images that are rejected, too, cost nothing; here they are errors.

    Source: Ma et al., arXiv:1801.02613 (the estimator, the logistic regression on all layers), by the authors' program
    xingjunm/lid_adversarial_subspace_detection: minibatch 100, k 20.
    Deviations: the minibatch is the last one of the training, where the authors take the other images under test, and
    with them the clean image of each attacked one; it learns from one step of the sign, of a size drawn up to 0.3, and
    from noise of the same length; the scores are standardised, not brought to [0, 1]; regression by the training's own
    steps.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, int, int], k: int) -> None:
        super().__init__()
        self.network, self.k, self.differentiates = network, k, False
        with torch.no_grad(), _in_eval_mode(network):
            layers = 1 + len(_outputs(network, torch.zeros(2, *shape))[1])
        self.detector = nn.Sequential(nn.BatchNorm1d(layers, affine=False), nn.Linear(layers, 1))
        self.reference: Tensor
        self.place: Tensor
        self.register_buffer("reference", torch.zeros(MINIBATCH, *shape))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K + 1), the last of "rejected"; in train mode the network's K."""
        if self.training:
            classes: Tensor = self.network(x)
            return classes
        logits, dimensions = self.with_dimensions(x)
        rejection = logits.amax(1, keepdim=True) + self.detector(dimensions)
        return torch.cat([logits, rejection if self.differentiates else rejection.detach()], 1)

    def with_dimensions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) the network's logits, and (N, L) the dimensions by each layer; the minibatch passes first."""
        with torch.no_grad():
            beside = [self.reference, *_outputs(self.network, self.reference)[1]]
        logits, outputs = _outputs(self.network, x)
        layers = [layer if self.differentiates else layer.detach() for layer in (x, *outputs)]
        estimates = [_dimension(layer, other, self.k) for layer, other in zip(layers, beside, strict=True)]
        return logits, torch.stack(estimates, 1)

    def own_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What the detector learns beside the network, of which it moves nothing: cross-entropy of its log-odds.

        Clean images and noisy ones are none, attacked ones are adversarial. Then the batch takes the place of the
        oldest images in the minibatch.
        """
        with _in_eval_mode(self.network):
            attacked, noisy = self._attacked_and_noisy(x, y)
            with torch.no_grad():
                dimensions = self.with_dimensions(torch.cat([x, noisy, attacked]))[1]
        truth = torch.cat([torch.zeros(2 * len(x)), torch.ones(len(x))]).to(x)
        loss = F.binary_cross_entropy_with_logits(self.detector(dimensions).squeeze(1), truth)
        with torch.no_grad():
            newest = x[-MINIBATCH:]
            self.reference[oldest_rows(self.place, len(newest), MINIBATCH)] = newest
        return loss

    def _attacked_and_noisy(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            loss = F.cross_entropy(self.network(point), y, reduction="sum")
            (slope,) = torch.autograd.grad(loss, point)
        size = LARGEST_STEP * torch.rand_like(x[:, :1, :1, :1])
        attacked = (x + size * slope.sign()).clamp(0, 1)
        length = (attacked - x).square().mean((1, 2, 3), keepdim=True).sqrt()
        return attacked, (x + length * torch.randn_like(x)).clamp(0, 1)


def _dimension(layer: Tensor, beside: Tensor, k: int) -> Tensor:
    """(N,) the maximum likelihood estimates k / sum log(r_k / r_i).

    Args:
        layer: (N, ...) its outputs; beside: (MINIBATCH, ...) those that distances r are to, the k least of which count.
    """
    distances = torch.cdist(layer.flatten(1), beside.flatten(1), compute_mode="use_mm_for_euclid_dist")
    nearest = distances.topk(k, dim=1, largest=False).values
    shares = (nearest / nearest[:, -1:].clamp_min(1e-9)).clamp_min(LEAST_RATIO)
    return k / (-shares.log().sum(1)).clamp_min(LEAST_SUM)


def _outputs(network: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits, and what the modules without children return on the way, in the order of their calls."""
    outputs: list[Tensor] = []
    leaves = [module for module in network.modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(lambda *of_call: outputs.append(of_call[2])) for leaf in leaves]
    try:
        logits: Tensor = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, outputs


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def build(network: nn.Module, _classes: int, shape: tuple[int, int, int], k: float) -> nn.Module:
    """The network with the detector."""
    return Lid(network, shape, int(k))


def surrogate(module: nn.Module) -> nn.Module:
    """The same with a gradient through the detector: what it says is penalised where it is what stands in the way.

    Source: this project. That a detector falls to an attack that knows it: Carlini and Wagner, arXiv:1705.07263; that
    this one lets most of what plain PGD finds pass: Athalye, Carlini and Wagner, arXiv:1802.00420 and their lid.ipynb.
    """
    module = copy.deepcopy(module)
    assert isinstance(module, Lid)
    module.differentiates = True
    return module
