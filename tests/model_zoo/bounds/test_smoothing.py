"""Certificates of randomized smoothing against the closed form of a linear model, and where the noise comes from."""

import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import Tensor

from attacks.errors import InputError
from model_zoo.bounds.smoothing import ABSTAIN, certify, lower_confidence_bound, predict

WEIGHTS = torch.tensor([0.6, -0.2, 0.3, 0.7]).view(1, 1, 2, 2)


def linear(x: Tensor) -> Tensor:
    """Two classes; smoothing changes no prediction of it, and the distance to its boundary is known."""
    lead = (WEIGHTS * x).flatten(1).sum(1) - 0.7
    return torch.stack([-lead, lead], 1)


def distance(x: Tensor) -> Tensor:
    distances: Tensor = linear(x)[:, 1].abs() / WEIGHTS.norm()
    return distances


@pytest.fixture
def x() -> Tensor:
    """Images at 0.5 to 1.5 standard deviations of the noise, 0.25, from the boundary, on both sides of it."""
    direction = WEIGHTS / WEIGHTS.norm()
    start = torch.full((1, 1, 2, 2), 0.5)
    start = start - direction * linear(start)[:, 1] / WEIGHTS.norm()
    steps = torch.tensor([-0.375, -0.25, -0.125, 0.125, 0.25, 0.375])
    moved: Tensor = start + direction * steps.view(-1, 1, 1, 1)
    return moved


def test_on_a_linear_model_the_radius_is_below_the_distance_to_the_boundary_and_near_it(x: Tensor) -> None:
    found = certify(linear, x, torch.arange(6), sigma=0.25, estimation=20_000)
    assert torch.equal(found.prediction, linear(x).argmax(1))
    assert (found.radius <= distance(x)).all()
    assert (found.radius >= 0.9 * distance(x)).all()
    assert torch.equal(found.holds(found.prediction, 0.2), distance(x) > 0.2)
    assert not found.holds(1 - found.prediction, 0.0).any()


def test_more_samples_certify_more(x: Tensor) -> None:
    few, many = (certify(linear, x, torch.arange(6), sigma=0.25, estimation=n).radius for n in (200, 5000))
    assert (many > few).all()


def test_on_the_boundary_both_abstain_and_away_from_it_both_answer(x: Tensor) -> None:
    middle = ((x[2] + x[3]) / 2).unsqueeze(0)
    assert distance(middle).item() == pytest.approx(0, abs=1e-6)
    found = certify(linear, middle, torch.tensor([0]), sigma=0.25, estimation=1000)
    assert found.prediction.tolist() == [ABSTAIN]
    assert found.radius.tolist() == [0.0]
    assert predict(linear, middle, torch.tensor([0]), sigma=0.25).tolist() == [ABSTAIN]
    assert torch.equal(predict(linear, x, torch.arange(6), sigma=0.25), linear(x).argmax(1))


def test_the_noise_belongs_to_the_image_and_the_sample(x: Tensor) -> None:
    whole = certify(linear, x, torch.arange(6), sigma=0.25, estimation=1000)
    alone = certify(linear, x[4:], torch.tensor([4, 5]), sigma=0.25, estimation=1000, batch_size=77)
    assert torch.equal(whole.radius[4:], alone.radius)
    other = certify(linear, x, torch.arange(6), sigma=0.25, estimation=1000, seed=1)
    assert not torch.equal(whole.radius, other.radius)


def test_selection_and_estimation_see_different_noise(x: Tensor) -> None:
    seen: list[Tensor] = []

    def watching(images: Tensor) -> Tensor:
        seen.append(images)
        return linear(images)

    certify(watching, x[:1], torch.tensor([0]), sigma=0.25, selection=50, estimation=50)
    first, second = seen
    assert not (first == second).flatten(1).all(1).any()
    assert (first.std() - 0.25).abs() < 0.05


@pytest.mark.parametrize(("hits", "samples"), [(0, 100), (1, 100), (50, 100), (99, 100), (100, 100), (99_000, 100_000)])
def test_the_confidence_bound_is_that_of_clopper_and_pearson(hits: int, samples: int) -> None:
    test = binomtest(hits, samples, alternative="greater")
    expected = test.proportion_ci(confidence_level=0.999, method="exact").low
    assert lower_confidence_bound(hits, samples, 0.001) == pytest.approx(expected)


def test_if_all_samples_hit_the_confidence_bound_is_a_root_of_alpha() -> None:
    assert lower_confidence_bound(500, 500, 0.001) == pytest.approx(0.001 ** (1 / 500))


@pytest.mark.parametrize(("sigma", "alpha"), [(0.0, 0.001), (0.5, 0.0), (0.5, 1.0)])
def test_settings_without_a_certificate_are_refused(x: Tensor, sigma: float, alpha: float) -> None:
    for function in (certify, predict):
        with pytest.raises(InputError, match="sigma above 0 and alpha between 0 and 1"):
            function(linear, x, torch.arange(6), sigma=sigma, alpha=alpha)


# A classifier whose probabilities under noise are known: the share of the normal distribution on each side of a line


def at_probability(p: float, n: int) -> Tensor:
    """(n, 1, 2, 2) images that `linear` takes for class 1 with this probability under noise of 0.25."""
    direction = WEIGHTS / WEIGHTS.norm()
    start = torch.full((1, 1, 2, 2), 0.5)
    start = start - direction * linear(start)[:, 1] / WEIGHTS.norm()
    moved: Tensor = start + 0.25 * float(norm.ppf(p)) * direction
    return moved.expand(n, -1, -1, -1)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_a_certificate_is_wrong_no_more_often_than_alpha_and_nearly_so_often(alpha: float) -> None:
    """At the true radius: Clopper and Pearson's bound exceeds the true probability in a share alpha of all images."""
    n, p = 600, 0.9
    found = certify(linear, at_probability(p, n), torch.arange(n), sigma=0.25, estimation=1000, alpha=alpha)
    assert (found.prediction == 1).all()
    wrong = int((found.radius > 0.25 * float(norm.ppf(p))).sum())
    assert binomtest(wrong, n, alpha, alternative="greater").pvalue > 1e-3
    assert wrong > 0.4 * alpha * n


@pytest.mark.parametrize("p", [0.5, 0.53, 0.6])
def test_the_abstention_rate_is_that_of_the_binomial_distribution(p: float) -> None:
    n, samples, alpha = 400, 300, 0.05
    classes = predict(linear, at_probability(p, n), torch.arange(n), sigma=0.25, samples=samples, alpha=alpha)
    clear = [k for k in range(samples + 1) if binomtest(k, samples, 0.5).pvalue <= alpha]
    expected = {
        ABSTAIN: 1 - float(binom.pmf(clear, samples, p).sum()),
        1: float(binom.pmf([k for k in clear if 2 * k > samples], samples, p).sum()),
        0: float(binom.pmf([k for k in clear if 2 * k < samples], samples, p).sum()),
    }
    for answer, share in expected.items():
        count = int((classes == answer).sum())
        assert binomtest(count, n, share).pvalue > 1e-3
    assert expected[0] <= alpha / 2 + 1e-9
