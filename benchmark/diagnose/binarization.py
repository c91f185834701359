"""The binarization test: a point that is known to exist is hidden in each image's ball, and the attack must find it."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attacks import attack
from attacks.draws import Draws
from attacks.errors import InputError
from attacks.registry import attack_spec
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.diagnose.features import Features
from benchmark.diagnose.finding import Measured, share_check, unknown
from benchmark.diagnose.read_out import logistic_regressions

INNER, SMALLER = 999, 0.95
"""Inner points of each image, and the share of epsilon that their ball has."""
CLOSENESS = 0.999
"""Where the read-out's boundary lies between the outermost inner point (0) and the boundary point (1)."""
LEAST_GAP = 0.1
"""Between the outermost inner point and the boundary point, in standard deviations of the inner points' scores; what is
nearer is no other side."""
GROUP, NUMBERS = 16, 2**26
"""Images whose points are held in memory together, and fewer where their pixels or features are more numbers."""
MISSED = 10.0
"""So many percent of the hidden points may be missed. The paper names no limit; attacks that work miss next to none."""
LEAST_QUERIES = 100


class Binarized(nn.Module):
    """Two classes, inner (0) and boundary (1), by the read-out of the clean image that is nearest.

    Args:
        features: of the model that is searched or judged.
        clean: (M, C, H, W), farther than two epsilon apart, so that a point of a ball belongs to one image.
        weight: (M, D); threshold: (M,): a point is beyond the boundary where weight . features > threshold.
    """

    def __init__(self, features: nn.Module, clean: Tensor, norm: str, weight: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.features, self.order = features, _order(norm)
        self.clean = nn.Buffer(clean.flatten(1))
        self.weight, self.threshold = nn.Buffer(weight), nn.Buffer(threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, 2)."""
        with torch.no_grad():
            which = torch.cdist(x.detach().flatten(1), self.clean, p=self.order).argmin(1)
        score = (self.features(x) * self.weight[which]).sum(1) - self.threshold[which]
        return torch.stack([-score, score], 1)


@dataclass(frozen=True)
class Hidden:
    """What the test found.

    Args:
        n: images whose hidden point the attack had to find. found: how many of them it found.
        too_easy: images left out since random points find the hidden point, too.
        left_out: images that have none: another image is too near, the read-out does not separate it, or a float32 pass
            does not see it.
        queries: of random sampling.
        forwards, backwards: passes in total.
    """

    n: int
    found: int
    too_easy: int
    left_out: int
    queries: int
    forwards: float
    backwards: float

    @property
    def measured(self) -> Measured:
        """As a check: it fails where the attack misses too many."""
        left_out = f"; {self.left_out} images have none" if self.left_out else ""
        if not self.n:
            easy = f"{self.queries} random points find all {self.too_easy} hidden points{left_out}"
            return unknown("binarization", easy if self.too_easy else f"none of {self.left_out} images has one to find")
        missed = self.n - self.found
        words = (
            f"finds {self.found} of {self.n} hidden points; {self.queries} random points find {self.too_easy} of "
            f"{self.n + self.too_easy}{left_out}"
        )
        return share_check("binarization", missed, self.n, MISSED, words)


def binarization(
    model: nn.Module,
    x: Tensor,
    index: Tensor,
    threat: ThreatModel,
    tested: AttackSpec,
    *,
    epsilon: float | None = None,
    surrogate: nn.Module | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> Hidden:
    """Whether an attack finds, in each image's ball, the one point that a read-out of the features tells apart.

    Args:
        model: in eval mode, frozen. x: (N, C, H, W) in [0, 1]; index: (N,) what draws are keyed by.
        threat: whose balls the points are of.
        tested: the attack under test. epsilon: that it runs at, if not the threat model's.
        surrogate: what an adaptive attack searches on in the model's place; it has the same features.

    Source: Zimmermann et al., arXiv:2206.13991, and its program google-research/active-adversarial-tests: 512 images,
        999 inner points (the image and points of a ball of 0.95 epsilon) and 1 boundary point, a logistic regression on
        what the last layer reads, its boundary moved to the boundary point (0.999 of the way).
    Deviations: the regression has a ridge of 1e-4, where the program's has none and ends by its own tolerance; the
        way is measured from the outermost inner point, not from the regression's boundary; an image has a point only
        where a float32 pass puts it beyond, so that it is there to be found; images whose point random sampling finds
        are left out, where the paper shows that share beside; of a detector, what it rejects counts.
    """
    apart = _apart(x, threat)
    clean, index = x[apart], index[apart]
    features = Features(model)
    passes = float(len(clean) * (INNER + 1))
    weight, threshold, is_there = _read_outs(features, clean, index, threat, seed=seed, batch_size=batch_size)
    clean, index, weight, threshold = (tensor[is_there] for tensor in (clean, index, weight, threshold))
    if not len(clean):
        return Hidden(0, 0, 0, len(x), 0, passes, 0.0)
    made = partial(Binarized, clean=clean, norm=threat.norm, weight=weight, threshold=threshold)
    target, source = made(features).eval(), None if surrogate is None else made(Features(surrogate)).eval()
    inner = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
    about: dict[str, Any] = {"norm": threat.norm, "index": index, "seed": seed, "batch_size": batch_size}
    try:
        own = threat.epsilon if epsilon is None else epsilon
        shown = attack(target, clean, inner, tested, epsilon=own, source=source, **about)
        found, forwards, backwards = ~shown.robust & shown.correct, shown.forwards, shown.backwards
    except InputError:  # it has no gradient at all, or none that is a number
        found, forwards, backwards = torch.zeros_like(inner, dtype=torch.bool), torch.zeros(1), torch.zeros(1)
    queries = max(LEAST_QUERIES, math.ceil(float(forwards.max()) / 50) * 50)
    sampling = attack_spec("random-points").with_settings(steps=queries // 50, queries_per_step=50)
    by_chance = attack(target, clean, inner, sampling, epsilon=threat.epsilon, **about)
    easy = ~by_chance.robust
    return Hidden(
        n=int((~easy).sum()),
        found=int((found & ~easy).sum()),
        too_easy=int(easy.sum()),
        left_out=len(x) - len(clean),
        queries=queries,
        forwards=passes + float(forwards.sum()) + float(by_chance.forwards.sum()),
        backwards=float(backwards.sum()),
    )


def _order(norm: str) -> float:
    return math.inf if norm == "Linf" else 2.0


def _apart(x: Tensor, threat: ThreatModel) -> Tensor:
    """(N,) bool: farther than two epsilon from every other image."""
    distance = torch.cdist(x.flatten(1), x.flatten(1), p=_order(threat.norm))
    distance.fill_diagonal_(math.inf)
    return distance.amin(1) > 2 * threat.epsilon


@torch.no_grad()
def _read_outs(
    features: nn.Module, clean: Tensor, index: Tensor, threat: ThreatModel, *, seed: int, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (N, D), thresholds (N,), and whether (N,) all inner points lie on one side, the boundary point beyond.

    A weight is as long as gives the inner points' scores variance 1.
    """
    smaller = ThreatModel(threat.norm, SMALLER * threat.epsilon)
    if not len(clean):
        return clean.flatten(1), clean.flatten(1).sum(1), torch.zeros(0, dtype=torch.bool, device=clean.device)
    weights, thresholds, there = [], [], []
    largest = max(clean[0].numel(), 4 * features(clean[:1]).shape[1])
    group = min(GROUP, max(1, NUMBERS // (largest * (INNER + 1))))
    for images, where in zip(clean.split(group), index.split(group), strict=True):
        each = where.repeat_interleave(INNER - 1)
        restart = torch.arange(1, INNER, device=where.device).repeat(len(where))
        draws = Draws(seed, each, restart, torch.zeros_like(each))
        around = smaller.random_start(images.repeat_interleave(INNER - 1, 0), draws)
        outer = threat.on_sphere(images, Draws.start(seed, where))
        points = torch.cat([images, around, outer])
        read = torch.cat([features(part) for part in points.split(batch_size)]).double()
        image, inner, beyond = read.split([len(images), len(around), len(images)])
        inside = torch.cat([image[:, None], inner.view(len(images), INNER - 1, -1)], 1)
        direction = logistic_regressions(inside, beyond)
        scores, far = (inside @ direction[:, :, None]).squeeze(2), (beyond * direction).sum(1)
        spread, outermost = scores.std(1).clamp_min(1e-12), scores.amax(1)
        weights.append((direction / spread[:, None]).float())
        thresholds.append(((outermost + CLOSENESS * (far - outermost)) / spread).float())
        in_float32 = (features(outer) * weights[-1]).sum(1) > thresholds[-1]
        there.append(((far - outermost) / spread > LEAST_GAP) & in_float32)
    return torch.cat(weights), torch.cat(thresholds), torch.cat(there)
