"""The one place that says what "robust" means."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks.errors import InputError
from attacks.judge import judge, predict
from attacks.threat_model import ThreatModel
from benchmark.store.verdicts import Verdicts

LINF = ThreatModel("Linf", 0.2)
CASES = {
    "outside the ball": torch.full((1, 1, 2, 2), 0.75),
    "one pixel outside the ball": torch.tensor([[[[0.5, 0.5], [0.5, 0.701]]]]),
    "not a number": torch.tensor([[[[0.5, 0.5], [0.5, float("nan")]]]]),
    "infinite": torch.tensor([[[[0.5, 0.5], [0.5, float("inf")]]]]),
}


def pixels(x: Tensor) -> Tensor:
    """Class logits: the pixels themselves."""
    return x.flatten(1)


def test_an_image_is_robust_exactly_where_it_is_still_classified_correctly() -> None:
    x = torch.full((4, 1, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[torch.arange(4), 0, 0, 0] = 0.6  # class 0 wherever this is the largest
    assert judge(pixels, x, torch.tensor([0, 1, 2, 0]), x_adv, LINF, batch_size=10).tolist() == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_no_verdict(batch_size: int) -> None:
    x = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = pixels(x).argmax(1)
    assert torch.equal(predict(pixels, x, batch_size=batch_size), y)
    y[::2] = (y[::2] + 1) % 4
    assert judge(pixels, x, y, x, LINF, batch_size=batch_size).tolist() == [False, True] * 3 + [False]


@pytest.mark.parametrize("x_adv", CASES.values(), ids=CASES.keys())
def test_a_proposal_outside_the_threat_model_is_an_error_and_no_success(x_adv: Tensor) -> None:
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([3, 0, 0])
    with pytest.raises(ValueError, match="1 of 3 images outside the threat model") as caught:
        judge(pixels, x, y, torch.cat([x[:2], x_adv]), LINF, batch_size=10)
    assert not isinstance(caught.value, InputError)  # a defect of the attack, not a mistake of the user's


@pytest.mark.parametrize("value", [-1e-4, 1.0001])
def test_a_pixel_outside_the_range_is_an_error_even_inside_the_ball(value: float) -> None:
    x = torch.full((1, 1, 2, 2), float(np.clip(value, 0, 1)))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
        judge(pixels, x, torch.tensor([0]), torch.full_like(x, value), LINF, batch_size=10)


def test_the_budget_may_be_used_up_to_float32_rounding_and_no_further() -> None:
    x = torch.linspace(0.2, 0.8, 100).view(25, 1, 2, 2)
    y = torch.full((25,), 3)
    assert judge(pixels, x, y, LINF.project(x + 1, x), LINF, batch_size=10).all()
    assert judge(pixels, x, y, x + 0.2, LINF, batch_size=10).all()
    with pytest.raises(ValueError, match="25 of 25"):
        judge(pixels, x, y, x + 0.20001, LINF, batch_size=10)


def test_the_l2_budget_is_that_of_the_whole_image() -> None:
    threat = ThreatModel("L2", 0.2)
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    assert judge(pixels, x, y, x + 0.0999, threat, batch_size=10).all()  # 4 pixels: a distance of 0.1998
    with pytest.raises(ValueError, match=r"L2 <= 0\.2"):
        judge(pixels, x, y, x + 0.101, threat, batch_size=10)


@pytest.mark.parametrize("before", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("fails", [False, True])
def test_judging_switches_tf32_off_and_back_to_what_it_was(before: tuple[bool, bool], fails: bool) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    original, seen = (matmul.allow_tf32, cudnn.allow_tf32), []

    def watching(x: Tensor) -> Tensor:
        seen.append((matmul.allow_tf32, cudnn.allow_tf32))
        if fails:
            raise RuntimeError("out of order")
        return pixels(x)

    try:
        matmul.allow_tf32, cudnn.allow_tf32 = before
        x = torch.zeros(1, 1, 2, 2)
        if fails:
            with pytest.raises(RuntimeError, match="out of order"):
                judge(watching, x, torch.tensor([0]), x, LINF, batch_size=1)
        else:
            judge(watching, x, torch.tensor([0]), x, LINF, batch_size=1)
        assert (seen, (matmul.allow_tf32, cudnn.allow_tf32)) == ([(False, False)], before)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = original


def test_judging_builds_no_graph() -> None:
    weight = torch.ones(4, requires_grad=True)
    grads = []

    def watching(x: Tensor) -> Tensor:
        logits = pixels(x) * weight
        grads.append(logits.requires_grad)
        return logits

    x = torch.zeros(1, 1, 2, 2)
    judge(watching, x, torch.tensor([0]), x, LINF, batch_size=1)
    assert grads == [False]


def test_no_images_give_no_verdicts() -> None:
    x = torch.zeros(0, 1, 2, 2)
    assert judge(pixels, x, torch.zeros(0, dtype=torch.int64), x, LINF, batch_size=10).tolist() == []


def test_correct_compares_label_and_clean_prediction() -> None:
    ones = np.ones(3)
    robust = np.array([True, False, False])
    shown = Verdicts(np.arange(3), np.array([1, 2, 3]), np.array([1, 2, 0]), robust, None, ones, ones)
    assert shown.correct.tolist() == [True, True, False]
