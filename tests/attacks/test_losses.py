import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.losses import LOSSES, cross_entropy, difference, dlr, dlr_targeted, kl_divergence, margin, probability


def random_logits(seed: int, *, n: int = 40, classes: int = 10, scale: float = 10.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


def numpy_softmax(logits: Tensor) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(logits.double().numpy())
    probabilities: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return probabilities


def numpy_margin(logits: Tensor, y: Tensor, kappa: float) -> list[float]:
    rows = zip(logits.double().tolist(), y.tolist(), strict=True)
    return [-max(z[c] - max(z[:c] + z[c + 1 :]) + kappa, 0.0) for z, c in rows]


def test_cross_entropy_is_minus_the_log_probability_of_the_label() -> None:
    logits, y = random_logits(0)
    expected = -np.log(numpy_softmax(logits)[np.arange(len(y)), y])
    np.testing.assert_allclose(cross_entropy(logits, y), expected, rtol=1e-5, atol=1e-6)


def test_cross_entropy_of_large_logits_is_finite() -> None:
    logits = torch.tensor([[2000.0, 0.0], [0.0, 2000.0]])
    values = cross_entropy(logits, torch.tensor([0, 0])).tolist()
    assert values == pytest.approx([0.0, 2000.0], abs=0.002)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_the_gradient_of_cross_entropy_points_the_same_way_however_confident_the_network_is(scale: float) -> None:
    logits, y = torch.tensor([[9.0, 2.0, -1.0, 1.0]]), torch.tensor([0])
    scaled = (scale * logits).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(scaled, y).sum(), scaled)
    exact = (scale * logits).double().requires_grad_()
    (expected,) = torch.autograd.grad(exact[:, 1:].logsumexp(1) - exact[:, 0], exact)  # of the log-odds, rising alike
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient / gradient.abs().max(), (expected / expected.abs().max()).float())


def test_cross_entropy_rises_where_its_usual_form_is_flat() -> None:
    gap = torch.tensor([4000.0, 400.0, 40.0, 17.0, 14.1, 13.9, 5.0])
    values = cross_entropy(torch.stack([gap, torch.zeros_like(gap)], 1), torch.zeros(len(gap), dtype=torch.long))
    assert (values.diff() > 0).all()
    torch.testing.assert_close(values[-2:], torch.log1p(torch.exp(-gap[-2:])))


def test_the_probability_loss_is_that_of_the_other_classes_and_rises_where_it_is_flat() -> None:
    logits, y = random_logits(13, scale=2.0)
    np.testing.assert_allclose(probability(logits, y), 1 - numpy_softmax(logits)[np.arange(len(y)), y], atol=1e-6)
    gap = torch.tensor([4000.0, 400.0, 40.0, 14.1, 13.9, 5.0])
    values = probability(torch.stack([gap, torch.zeros_like(gap)], 1), torch.zeros(len(gap), dtype=torch.long))
    assert (values.diff() > 0).all()
    torch.testing.assert_close(values[-2:], torch.sigmoid(-gap[-2:]))


@pytest.mark.parametrize("kappa", [0.0, 3.0, 50.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_margin_is_the_label_over_the_best_other_class_cut_at_kappa(kappa: float, classes: int) -> None:
    logits, y = random_logits(1, classes=classes)
    expected = numpy_margin(logits, y, kappa)
    if kappa < 50:
        assert min(expected) < max(expected) == 0.0  # both branches of the relu are met
    np.testing.assert_allclose(margin(logits, y, kappa=kappa), expected, rtol=1e-5, atol=1e-5)


def test_margin_uses_a_kappa_of_50_and_so_pushes_misclassified_images_further() -> None:
    logits = torch.tensor([[0.0, 40.0], [0.0, 60.0]], requires_grad=True)
    loss = margin(logits, torch.tensor([0, 0]))
    assert loss.tolist() == [-10.0, 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.tolist() == [[-1.0, 1.0], [0.0, 0.0]]


def test_kl_divergence_is_that_of_the_clean_from_the_perturbed_distribution() -> None:
    clean, perturbed = random_logits(2, scale=2.0)[0], random_logits(3, scale=2.0)[0]
    p, q = numpy_softmax(clean), numpy_softmax(perturbed)
    expected = (p * np.log(p / q)).sum(1)
    reverse = (q * np.log(q / p)).sum(1)
    assert np.abs(expected - reverse).min() > 1e-3  # so that the direction is tested
    np.testing.assert_allclose(kl_divergence(perturbed, clean.log_softmax(1)), expected, rtol=1e-4, atol=1e-5)


def test_kl_divergence_of_a_distribution_from_itself_is_zero() -> None:
    logits, _ = random_logits(4)
    assert kl_divergence(logits, logits.log_softmax(1)).abs().max() < 1e-6


def random_pairs(y: Tensor, classes: int) -> Tensor:
    """(N, 2) each label with another class."""
    shift = torch.randint(1, classes, y.shape, generator=torch.Generator().manual_seed(7))
    return torch.stack([y, (y + shift) % classes], 1)


def test_difference_is_the_target_over_the_label() -> None:
    logits, y = random_logits(8)
    pair = random_pairs(y, 10)
    expected = [z[t] - z[c] for z, (c, t) in zip(logits.tolist(), pair.tolist(), strict=True)]
    np.testing.assert_allclose(difference(logits, pair), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_dlr_is_the_margin_over_the_lead_on_the_third(classes: int) -> None:
    logits, y = random_logits(9, classes=classes)
    expected = []
    for z, c in zip(logits.double().tolist(), y.tolist(), strict=True):
        ordered = sorted(z, reverse=True)
        expected.append(-(z[c] - max(z[:c] + z[c + 1 :])) / (ordered[0] - ordered[2]))
    np.testing.assert_allclose(dlr(logits, y), expected, rtol=1e-4, atol=1e-5)


def test_dlr_of_two_classes_is_the_difference_itself() -> None:
    logits, y = random_logits(10, classes=2)
    torch.testing.assert_close(dlr(logits, y), difference(logits, torch.stack([y, 1 - y], 1)))


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_targeted_dlr_is_the_difference_over_the_lead_on_the_third_and_fourth(classes: int) -> None:
    logits, y = random_logits(11, classes=classes)
    pair = random_pairs(y, classes)
    expected = []
    for z, (c, t) in zip(logits.double().tolist(), pair.tolist(), strict=True):
        ordered = sorted(z, reverse=True)
        behind = (ordered[2] + ordered[3]) / 2 if classes > 3 else ordered[2]
        expected.append(-(z[c] - z[t]) / (ordered[0] - behind))
    np.testing.assert_allclose(dlr_targeted(logits, pair), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, -30.0])
def test_dlr_does_not_depend_on_the_scale_of_the_logits_nor_on_a_shift(shift: float) -> None:
    logits, y = random_logits(12)
    torch.testing.assert_close(dlr(3 * logits + shift, y), dlr(logits, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_is_per_image(name: str) -> None:
    logits, y = random_logits(5)
    other_labels = {
        "kl-divergence": random_logits(6)[0].log_softmax(1),
        "difference": random_pairs(y, 10),
        "dlr-targeted": random_pairs(y, 10),
    }
    label = other_labels.get(name, y)
    whole = LOSSES[name](logits, label)
    assert whole.shape == (len(y),)
    for row in range(3):
        torch.testing.assert_close(LOSSES[name](logits[row : row + 1], label[row : row + 1])[0], whole[row])
