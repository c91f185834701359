"""Weak and strong features: attacks measure the accuracies of linear classifiers that have a closed form."""

import math

import torch
from scipy.stats import norm

from benchmark.studies.feature_model import ADVERSARIAL, NATURAL, STRONG, WEAK, compute, draw_points
from benchmark.studies.points import Pixels, chance, linear_classifier, measured_errors
from benchmark.studies.study import Inputs

P, D, N = 0.95, 100, 3000
ETA = 3 / math.sqrt(D)


def accuracy(weight: torch.Tensor, epsilon: float) -> float:
    """P(<w, z> y > epsilon ||w||_1), over both values of the strong feature."""
    strong, weak = float(weight[0]), weight[1:]
    mean, deviation, cost = ETA * float(weak.sum()), float(weak.norm()), epsilon * float(weight.abs().sum())
    right, wrong = (float(norm.cdf((mean + sign * strong - cost) / deviation)) for sign in (1, -1))
    return P * right + (1 - P) * wrong


def test_an_attack_finds_the_closed_form_accuracy_of_linear_classifiers() -> None:
    z, y = draw_points(N, p=P, d=D, eta=ETA, seed=0, part=1)
    for seed in range(3):
        weight = torch.rand(D + 1, generator=torch.Generator().manual_seed(seed)) + 0.01
        weight[0] *= 5 * seed
        for epsilon in (0.1, 2 * ETA):
            found = measured_errors(linear_classifier(weight, Pixels(20.0)), z, y, "fgsm", epsilon=epsilon, seed=0)
            for error, expected in ((found.natural, accuracy(weight, 0)), (found.robust, accuracy(weight, epsilon))):
                assert abs(1 - error - expected) < chance(expected, N)


def test_weak_features_are_accurate_the_strong_one_robust_and_adversarial_training_prefers_it() -> None:
    result = compute(Inputs(), p=P, d=D, strength=3.0, train=1500, test=1500)
    assert [one.what for one in result.comparisons if not one.agrees] == []
    rows = result.table.set_index("classifier")
    assert rows["robust_accuracy"][WEAK] < 1 < 90 < rows["robust_accuracy"][STRONG]
    assert rows["robust_accuracy"][ADVERSARIAL] > 80 > 50 > rows["robust_accuracy"][NATURAL]
