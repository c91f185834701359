import contextlib
import io

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from attacks import pyautoattack_adapter
from attacks.api import attack
from attacks.errors import InputError
from attacks.oracle import CountingClassifier
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, ThirdParty
from attacks.threat_model import ThreatModel


def autoattack(
    classes: int, *, epsilon: float, seed: int = 0, capsys: pytest.CaptureFixture[str]
) -> tuple[Tensor, Tensor]:
    """Images and what becomes of them, on a small linear network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, classes)).eval().requires_grad_(False)
    x = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    x_adv = pyautoattack_adapter.autoattack(
        CountingClassifier(model), x, model(x).argmax(1), ThreatModel("L2", epsilon), seed=seed, version="standard"
    )
    assert capsys.readouterr().out == ""
    return x, x_adv


def test_its_draws_are_those_of_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (autoattack(5, epsilon=1.0, seed=seed, capsys=capsys)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_are_refused(classes: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"needs at least 4 classes, got {classes}; use autoattack"):
        autoattack(classes, epsilon=0.5, capsys=capsys)


def test_four_classes_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    x, x_adv = autoattack(4, epsilon=0.5, capsys=capsys)
    assert (x != x_adv).flatten(1).any(1).all()


def fails(height: int, width: int, norm: str) -> bool:
    """Whether the package's Square does, on images that it does not break."""
    square = SquareAttack(lambda x: torch.eye(4)[x.new_zeros(len(x)).long()], norm=norm, n_queries=3, eps=1.0, seed=0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            square.perturb(torch.full((1, 1, height, width), 0.5), torch.zeros(1).long())
    except (RuntimeError, ZeroDivisionError):
        return True
    return False


def is_refused(height: int, width: int, norm: str, members: tuple[str, ...] = ("square",)) -> bool:
    try:
        pyautoattack_adapter.require_data((1, height, width), 10, norm, members=members)
    except InputError:
        return True
    return False


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_sizes_that_are_refused_are_those_that_its_square_fails_on(norm: str) -> None:
    sizes = [(side, side) for side in range(1, 33)] + [(12, 10), (13, 14), (17, 18), (29, 30), (28, 32), (22, 44)]
    refused = [size for size in sizes if is_refused(*size, norm)]
    assert refused == [size for size in sizes if fails(*size, norm)]
    assert bool(refused) == (norm != "Linf")
    assert not any(is_refused(*size, norm, ("fab-t",)) for size in sizes)


def refusal(name: str, classes: int, side: int, norm: str) -> str:
    """What the attack says, after it asked the model nothing about its images but what the checks before it did."""
    asked = []

    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            logits: Tensor = torch.eye(classes)[0] * 9 + x.flatten(1).mean(1, keepdim=True) * torch.arange(classes)
            return logits

    model, x = Network().eval(), torch.rand(20, 1, side, side)
    with pytest.raises(InputError) as found:
        attack(model, x, torch.zeros(20).long(), ATTACKS[name], norm=norm, epsilon=0.01)
    assert asked.count(20) == 0
    return str(found.value)


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("name", ["autoattack-reference", "reference-square"])
def test_a_size_that_its_square_fails_on_is_refused_before_anything_is_attacked(name: str, norm: str) -> None:
    remedy = "apgd-l1,apgd-l1-t" if norm == "L1" else "autoattack" if name == "autoattack-reference" else "square"
    expected = f"attack {name}: the reference's Square cannot tile images of 14 x 14 pixels under {norm}; use {remedy}"
    assert refusal(name, 5, 14, norm).startswith(expected)


def test_the_ensemble_under_l1_refuses_what_its_last_members_fail_on() -> None:
    of_size = "attack autoattack-l1: the reference's Square cannot tile images of 24 x 24 pixels under L1"
    assert refusal("autoattack-l1", 5, 24, "L1") == f"{of_size}; use apgd-l1,apgd-l1-t, or images of another height"
    of_classes = "attack autoattack-l1: the reference AutoAttack needs at least 4 classes, got 3; use apgd-l1,apgd-l1-t"
    assert refusal("autoattack-l1", 3, 8, "L1") == of_classes


@pytest.mark.parametrize("classes", [2, 3])
def test_the_remedy_for_few_classes_works(classes: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, classes)).eval()
    x = torch.rand(3, 1, 5, 5)
    for name in ("apgd-l1", "apgd-l1-t"):
        spec = ATTACKS[name].with_settings(steps=12)
        assert attack(model, x, model(x).argmax(1), spec, norm="L1", epsilon=20.0).robust_acc == 0


def test_what_a_library_raises_is_one_line() -> None:
    def propose(*_: object, seed: int) -> Tensor:
        raise RuntimeError(f"shape\nmismatch of seed {seed}")

    theirs = AttackSpec("theirs", algorithm="theirs", method=ThirdParty(propose, "foolbox"))
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), torch.rand(2, 1, 2, 2)
    with pytest.raises(InputError, match=r"^attack theirs: foolbox raised RuntimeError: shape mismatch of seed 0$"):
        attack(model, x, model(x).argmax(1), theirs, epsilon=0.1)
