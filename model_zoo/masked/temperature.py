"""A temperature that is there in training and gone at test: logits so large that the softmax has no gradient left."""

from torch import Tensor, nn


class Temperature(nn.Module):
    """A network whose logits are divided by a temperature in train mode alone.

    Images (N, C, H, W) in [0, 1] to logits (N, K).

    Source: Papernot et al., arXiv:1511.04508, Section IV (temperatures 1 to 100, 100 for the figures of robustness).
    Deviations: none.
    """

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.network(x)
        return logits / self.temperature if self.training else logits


class Cooled(nn.Module):
    """The same network with its logits divided by the temperature, at test too."""

    def __init__(self, model: Temperature) -> None:
        super().__init__()
        self.network, self.temperature = model.network, model.temperature

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.network(x)
        return logits / self.temperature


def build(network: nn.Module, _classes: int, _shape: tuple[int, int, int], temperature: float) -> nn.Module:
    """The network with a temperature."""
    return Temperature(network, temperature)


def surrogate(module: nn.Module) -> nn.Module:
    """The logits before the temperature: the same classes.

    Source: Carlini and Wagner, arXiv:1608.04644, Section IV.
    """
    assert isinstance(module, Temperature)
    return Cooled(module)
