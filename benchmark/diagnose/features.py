"""What a network's last linear layer reads, as a module."""

from torch import Tensor, nn

from attacks.features import features_and_logits


class Features(nn.Module):
    """Images (N, C, H, W) to features (N, D): the input of the last linear layer that the forward pass calls.

    The pass is the model's own, with whatever it does to images and gradients. Where it calls no linear layer on one
    row an image, the features are the logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return features_and_logits(self.model, x)[0].float()
