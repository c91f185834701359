import pytest
import torch
from torch import Tensor, nn

from attacks import pyautoattack_adapter
from attacks.errors import InputError
from attacks.oracle import CountingClassifier
from attacks.threat_model import ThreatModel


def autoattack(
    classes: int, *, epsilon: float, seed: int = 0, capsys: pytest.CaptureFixture[str]
) -> tuple[Tensor, Tensor]:
    """Images and what becomes of them, on a small linear network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval().requires_grad_(False)
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    x_adv = pyautoattack_adapter.autoattack(
        CountingClassifier(model), x, model(x).argmax(1), ThreatModel("L2", epsilon), seed=seed, version="standard"
    )
    assert capsys.readouterr().out == ""
    return x, x_adv


def test_its_draws_are_those_of_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (autoattack(5, epsilon=0.5, seed=seed, capsys=capsys)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_are_refused(classes: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"needs at least 4 classes, got {classes}; use autoattack"):
        autoattack(classes, epsilon=0.5, capsys=capsys)


def test_four_classes_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    x, x_adv = autoattack(4, epsilon=0.5, capsys=capsys)
    assert (x != x_adv).flatten(1).any(1).all()
