"""TRADES on images that are moved and then changed: which move it takes, and what grows when."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.spatial import transform
from attacks.threat_model import ThreatModel
from benchmark.studies.moved_trades import CHANGED_FROM, moved_trades, worst_move
from model_zoo.defenses import trades
from model_zoo.defenses.context import TrainingContext

MOVES, PIXELS = ThreatModel("spatial-10deg", 4.0), ThreatModel("Linf", 0.3)
Y = torch.tensor([0, 1])


class Ink(nn.Module):
    """Two logits: what is left of the picture's ink, and none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        ink = self.scale * x.sum((1, 2, 3))
        return torch.stack([ink, -ink], 1)


def spots() -> Tensor:
    x = torch.zeros(2, 1, 12, 12)
    x[:, :, 5:7, 9:11] = 0.5
    return x


def context(share: float) -> TrainingContext:
    threat = ThreatModel("Linf", share * PIXELS.epsilon)
    return TrainingContext(threat, Draws.start(0, torch.arange(2)), steps=3, rel_step_size=0.4)


def test_the_move_that_takes_the_ink_away_is_the_worst() -> None:
    x, proposed = spots(), torch.tensor([[[0.0, -1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]).repeat(2, 1, 1)
    assert torch.equal(worst_move(Ink(), x, proposed), transform(x, proposed[:, 1]))


def test_the_radius_grows_from_natural_training_by_moves_to_pixels() -> None:
    defense, model, x = moved_trades(MOVES, PIXELS, beta=1.0, tried=6), Ink(), spots()
    losses = [defense.batch_loss(model, x, Y, context(share), beta=1.0).item() for share in (0, CHANGED_FROM, 1)]
    assert losses[0] == F.cross_entropy(model(x), Y).item()
    assert losses[0] < losses[1] < losses[2]
    natural = trades.objective(model(x), model(x), Y, beta=0.0).item()
    assert defense.batch_loss(model, x, Y, context(1), beta=0.0).item() == natural
