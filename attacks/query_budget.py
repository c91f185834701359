"""A query budget for third-party attacks by labels, image by image, whatever length their library gives them."""

import torch
from torch import Tensor, nn

from attacks.oracle import CountingClassifier
from attacks.threat_model import ThreatModel


class BudgetSpentError(Exception):
    """The attack must end: each of its images was asked about as often as it may be, or all of them are broken."""


class QueryBudget(nn.Module):
    """A classifier that ends an attack by `BudgetSpentError`, and keeps the nearest misclassified point it was shown.

    Args:
        classifier: answers, and is told in its `queries` what each image took.
        x: (N, C, H, W) in [0, 1]; y: (N,) labels.
        queries: how many answers an image may take.

    Attributes:
        rows: which images (M,) a pass is about, one point each in this order; all of them to begin with.
        x_adv: (N, C, H, W) of each image the nearest misclassified point by the threat model's norm, else itself.
    """

    def __init__(
        self, classifier: CountingClassifier, x: Tensor, y: Tensor, threat: ThreatModel, *, queries: int
    ) -> None:
        super().__init__()
        self._classifier, self._x, self._y, self._threat, self._queries = classifier, x, y, threat, queries
        self._passes = 0
        self._least = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        self._is_open = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.rows = torch.arange(len(x), device=x.device)
        self.x_adv = x.clone()
        self.counts = classifier.queries = torch.zeros((len(x), 2), dtype=torch.int64, device=x.device)
        self.training = False

    def forward(self, points: Tensor) -> Tensor:
        """(M, K) logits of points (M, C, H, W). Raises: BudgetSpentError where no answer is left, or none is needed."""
        if self._passes >= self._queries or not self._is_open.any():
            raise BudgetSpentError
        self._passes += 1
        rows, x = self.rows, self._x[self.rows]
        logits: Tensor = self._classifier(points)
        wrong = logits.argmax(1) != self._y[rows]
        self.counts[rows] += self._is_open[rows, None] * torch.stack([torch.ones_like(rows), wrong.long()], 1)
        distance = torch.where(wrong, self._threat.distance(points, x).double(), torch.inf)
        nearer = rows[distance < self._least[rows]]
        self.x_adv[nearer] = points[distance < self._least[rows]].detach()
        self._least[rows] = torch.minimum(self._least[rows], distance)
        self._is_open[rows] &= ~(wrong & self._threat.contains(points, x))
        return logits
