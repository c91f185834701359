"""Randomized smoothing: the class that a classifier gives most often under Gaussian noise, and how far that is certain.

Radii are in L2, whatever norm a suite attacks in; an Linf ball of radius r lies in the L2 ball of radius r sqrt(CHW).
"""

from dataclasses import dataclass

import torch
from scipy.stats import beta, binomtest, norm
from torch import Tensor

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.oracle import Classifier

ABSTAIN = -1
"""In place of a class."""


@dataclass(frozen=True)
class Certificate:
    """What is certain of some images, each but for a probability of alpha.

    Args:
        prediction: (N,) class of the smoothed classifier; ABSTAIN where there is none.
        radius: (N,) float64, in L2 and pixel scale, within which it stays that class; 0 where there is none.
    """

    prediction: Tensor
    radius: Tensor

    def holds(self, y: Tensor, epsilon: float) -> Tensor:
        """(N,) bool: certified to be class y at every point closer than epsilon in L2."""
        return (self.prediction == y) & (self.radius >= epsilon)


def certify(
    classifier: Classifier,
    x: Tensor,
    index: Tensor,
    *,
    sigma: float,
    selection: int = 100,
    estimation: int = 100_000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 1000,
) -> Certificate:
    """The certified radius of every image.

    Args:
        classifier: the base, in eval mode, on noisy images that are not clipped.
        x: (N, C, H, W) in [0, 1]; index: (N,) in the dataset, which the noise belongs to.
        sigma: standard deviation of the noise in pixel scale, above 0.
        selection, estimation: samples to guess the class by, and to bound its probability by (n_0 and n).
        alpha: probability of a certificate that is wrong.
        batch_size: samples at a time.

    Source: Cohen et al., arXiv:1902.02918, CERTIFY in Section 3.2.2 and Proposition 2.
    Deviations: none.
    """
    _check(sigma, alpha)
    predictions, radii = [], []
    for image, number in zip(x, index, strict=True):
        guess = int(_counts(classifier, image, Draws.start(seed, number[None]), sigma, selection, batch_size).argmax())
        again = Draws.start(seed, number[None], torch.ones_like(number[None]))
        hits = int(_counts(classifier, image, again, sigma, estimation, batch_size)[guess])
        lower = lower_confidence_bound(hits, estimation, alpha)
        predictions.append(guess if lower > 0.5 else ABSTAIN)
        radii.append(sigma * float(norm.ppf(lower)) if lower > 0.5 else 0.0)
    return Certificate(
        torch.tensor(predictions, device=x.device), torch.tensor(radii, dtype=torch.float64, device=x.device)
    )


def predict(
    classifier: Classifier,
    x: Tensor,
    index: Tensor,
    *,
    sigma: float,
    samples: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 1000,
) -> Tensor:
    """(N,) the smoothed classifier's class, or ABSTAIN where the first two classes are too close to tell.

    Args: those of `certify`; alpha is the probability of another class than the smoothed classifier's.
    Source: Cohen et al., arXiv:1902.02918, PREDICT in Section 3.2.1.
    Deviations: none.
    """
    _check(sigma, alpha)
    classes = []
    for image, number in zip(x, index, strict=True):
        counts = _counts(classifier, image, Draws.start(seed, number[None]), sigma, samples, batch_size)
        (first, second), (top, _) = counts.topk(2)
        is_clear = binomtest(int(first), int(first + second), 0.5).pvalue <= alpha
        classes.append(int(top) if is_clear else ABSTAIN)
    return torch.tensor(classes, device=x.device)


def lower_confidence_bound(hits: int, samples: int, alpha: float) -> float:
    """A probability that hits of samples exceed with confidence 1 - alpha: Clopper and Pearson's, one-sided."""
    return float(beta.ppf(alpha, hits, samples - hits + 1)) if hits else 0.0


def _check(sigma: float, alpha: float) -> None:
    if not (sigma > 0 and 0 < alpha < 1):
        raise InputError(f"smoothing needs sigma above 0 and alpha between 0 and 1, got {sigma:g} and {alpha:g}")


@torch.no_grad()
def _counts(classifier: Classifier, image: Tensor, draws: Draws, sigma: float, samples: int, batch_size: int) -> Tensor:
    """(K,) how often each class is predicted for one image (C, H, W) under noise."""
    counts = torch.zeros(0, dtype=torch.long, device=image.device)
    for step in torch.arange(samples, device=image.device).split(batch_size):
        noise = Draws(draws.seed, draws.index.expand_as(step), draws.restart.expand_as(step), step).normal(image.shape)
        logits = classifier(image + sigma * noise)
        found = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
        counts = found if not len(counts) else counts + found
    return counts
