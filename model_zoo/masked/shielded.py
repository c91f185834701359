"""A network behind a transformation of its images, which most masks are."""

from torch import Tensor, nn

from attacks.bpda import Bpda, Part, identity


class Shielded(nn.Module):
    """A network behind a transformation of its images.

    Images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        transform: images (N, C, H, W) to what the network takes.
        trains_behind: whether the network is trained on what is transformed; else it is trained on the images.
    """

    def __init__(self, transform: nn.Module, network: nn.Module, *, trains_behind: bool = False) -> None:
        super().__init__()
        self.transform, self.network, self.trains_behind = transform, network, trains_behind

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        passes_by = self.training and not self.trains_behind
        logits: Tensor = self.network(x if passes_by else self.transform(x))
        return logits


def with_stand_in(module: nn.Module, stand_in: Part = identity) -> nn.Module:
    """The same network and transformation, whose gradient is the stand-in's: what an adaptive attack searches on."""
    assert isinstance(module, Shielded)
    return Shielded(Bpda(module.transform, stand_in), module.network, trains_behind=module.trains_behind)
