"""Two Gaussians: attacks measure the errors that have a closed form, and unlabelled points stand in for labels."""

import torch
from scipy.stats import norm

from benchmark.studies.gaussian_model import LABELLED, MIXED, PSEUDO, compute, unlabelled_means
from benchmark.studies.points import Pixels, chance, generator, linear_classifier, measured_errors
from benchmark.studies.study import Inputs

D, N = 100, 4000


def closed_form(weight: torch.Tensor, epsilon: float) -> float:
    """Q((<w, 1> - epsilon ||w||_1) / (sigma ||w||_2)), Schmidt et al., Lemma 20."""
    margin = float(weight.sum() - epsilon * weight.abs().sum())
    return float(norm.sf(margin / (D**0.25 * float(weight.norm()))))


def test_an_attack_finds_the_closed_form_errors_of_linear_classifiers() -> None:
    draws = generator(0, 1)
    y = torch.randint(2, (N,), generator=draws)
    z = (2.0 * y - 1)[:, None] + D**0.25 * torch.randn(N, D, generator=draws)
    for n in (1, 4, 16):
        weight = 1 + D**0.25 * torch.randn(n, D, generator=draws).mean(0)
        found = measured_errors(linear_classifier(weight, Pixels(100.0)), z, y, "fgsm", epsilon=0.4, seed=0)
        for error, expected in ((found.natural, closed_form(weight, 0)), (found.robust, closed_form(weight, 0.4))):
            assert abs(error - expected) < chance(expected, N)


def test_pseudo_labels_of_a_perfect_start_average_to_the_mean_by_the_relevant_share() -> None:
    (count, mean), *_ = unlabelled_means(torch.ones(D), (8000,), generator(0), relevant=0.5, sigma=0.01)
    assert count == 8000
    torch.testing.assert_close(mean, torch.full((D,), 0.5), atol=0.03, rtol=0)


def test_more_points_lower_the_error_with_labels_or_without() -> None:
    table = compute(Inputs(), d=D, epsilon=0.25, trials=1, test=250).table
    assert (table["robust_error"] >= table["standard_error"]).all()
    means = table.groupby(["kind", "points"])["robust_error"].mean()
    assert means[LABELLED, 1] > means[LABELLED, 16] > means[LABELLED, 256]
    assert means[LABELLED, 4] > means[PSEUDO, 3000]
    needed = table[table["kind"] == MIXED].groupby("relevant")["points"].max()
    assert needed[0.125] > needed[1.0]
