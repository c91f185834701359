"""The closed forms of the losses' gradients against autograd: the same bits."""

import pytest
import torch

from attacks.loss_gradients import LOSS_GRADIENTS
from attacks.losses import LOSSES, TARGETED_LOSSES


@pytest.mark.parametrize("name", LOSS_GRADIENTS)
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 100])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_losses_and_gradients_are_those_of_autograd_to_the_bit(name: str, classes: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = scale * torch.randn(61, classes, generator=generator)
    logits[:20] = (2 * logits[:20] / scale).round() * scale / 2  # with ties
    y = torch.randint(classes, (61,), generator=generator)
    other = (y + 1 + torch.randint(classes - 1, (61,), generator=generator)) % classes
    label = torch.stack([y, other], 1) if name in TARGETED_LOSSES else y

    leaf = logits.clone().requires_grad_()
    expected = LOSSES[name](leaf, label)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    value, gradient = LOSS_GRADIENTS[name](logits, label, True)
    assert value is not None
    assert torch.equal(value, expected.detach())
    assert torch.equal(gradient, slope)
    assert torch.equal(LOSS_GRADIENTS[name](logits, label, False)[1], slope)
    assert torch.equal(logits, leaf), "the logits are left alone"
