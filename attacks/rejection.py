"""Models that may answer "rejected" in place of a class, by one logit more: how an attack reads what they say."""

import torch
from torch import Tensor, nn

from attacks.oracle import Classifier


def as_label(logits: Tensor, y: Tensor, classes: int) -> Tensor:
    """(N, K) logits in which a rejection speaks for the label: z_y becomes max(z_y, z_K).

    An image that is rejected under attack withstands it (`attacks/judge.py`), as one that is classified correctly does.
    So an attack has to bring the label and the rejection below another class; whatever loss it climbs, and whatever
    margin it asks for, the largest other class is a class, and it never climbs the rejection.

    Args:
        logits: (N, K) of a model that rejects nothing, which are returned as they are, or (N, K + 1).
        y: (N,) class indices. classes: K.
    """
    if logits.shape[1] != classes + 1:
        return logits
    own = torch.maximum(logits.gather(1, y[:, None]), logits[:, -1:])
    return logits[:, :-1].scatter(1, y[:, None], own)


class ClassesAlone(nn.Module):
    """A classifier without its rejection, for those who know of classes alone, such as third-party attacks.

    Images (N, C, H, W) to logits (N, K).
    """

    def __init__(self, classifier: Classifier, classes: int) -> None:
        super().__init__()
        self.classifier, self.classes = classifier, classes
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, K), the first ones of what the classifier returns."""
        return self.classifier(x)[:, : self.classes]
