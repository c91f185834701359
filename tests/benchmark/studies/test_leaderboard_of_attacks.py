"""The leaderboard of attacks: its areas by hand, and that no attack is beyond all of them together."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.data.split import Split
from benchmark.studies import leaderboard_of_attacks
from benchmark.studies.leaderboard_of_attacks import BEST, compute, draw, optimality
from benchmark.studies.shipped import broken_within
from benchmark.studies.study import Inputs


def test_optimality_is_the_share_of_an_area_computed_by_hand() -> None:
    best = np.array([0.4, 0.0])  # from 0.8 at 0: areas 0.2 * 0.1 and 0.6 * 0.1
    assert optimality(best, best, 0.8, [0.1, 0.2]) == pytest.approx(1.0)
    assert optimality(np.array([0.8, 0.4]), best, 0.8, [0.1, 0.2]) == pytest.approx(0.02 / 0.08)
    assert optimality(np.array([0.8, 0.8]), best, 0.8, [0.1, 0.2]) == 0.0


class Bright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) - 0.5
        return torch.stack([-score, score, score - 9, score - 9], 1)


def test_images_break_at_their_distance_and_stay_broken() -> None:
    x = torch.tensor([0.3, 0.42, 0.55, 0.6]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    y = torch.tensor([0, 0, 1, 0])  # the last is misclassified
    images = Split("four", "test", x, y, torch.arange(4), 4)
    broken, passes = broken_within(Bright().eval(), images, "pgd-20", [0.02, 0.1, 0.3], seed=0)
    assert broken.tolist() == [[False, False, True], [False, True, True], [False, True, True], [True, True, True]]
    assert 20 <= passes <= 60


def test_the_study_ranks_stronger_attacks_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard_of_attacks, "MODELS", ("madry",))
    monkeypatch.setattr(leaderboard_of_attacks, "ATTACKS", ("fgsm", "pgd-20", "apgd-t"))
    result = compute(Inputs(), images=30, radii=3)
    shares = result.table.drop_duplicates("attack").set_index("attack")["optimality"]
    assert shares["fgsm"] < shares["pgd-20"] <= shares["apgd-t"] <= shares[BEST] == 1.0
    assert [one.measured for one in result.comparisons] == [
        pytest.approx(shares["apgd-t"] - shares[other]) for other in ("pgd-20", "fgsm")
    ]
    for _, curve in result.table.groupby("attack"):
        assert curve["robust_acc"].is_monotonic_decreasing
    assert len(draw(result.table).axes) == 1
