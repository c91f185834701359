import pytest
import torch
from torch import nn

from attacks import fab
from attacks.draws import Draws
from attacks.oracle import Oracle
from attacks.threat_model import ThreatModel


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-41])
def test_it_crosses_a_boundary_however_small_the_logits_are(norm: str, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False))
    model[1].weight.data = scale * torch.randn(4, 9, generator=generator).roll(-2, 0)
    x = 0.3 + 0.4 * torch.rand(8, 1, 3, 3, generator=generator)
    y = model(x).argmax(1)
    assert (y == 0).any()  # which an argmin over nothing but infinity would aim at
    draws = Draws.start(0, torch.arange(8))
    oracle = Oracle(model.requires_grad_(False), ThreatModel(norm, 1.0))
    state = fab.init(x, y, oracle.threat, draws, targeted=False)
    for _ in range(3):
        state = fab.step(oracle, state, targeted=False, alpha_max=0.1, eta=1.05, beta=0.9)
    assert (oracle.logits(state.x_adv).argmax(1) != y).all()
