"""What each method proves of some images: that a ball holds no misclassified point, or that it does.

The deterministic ones bound what a float32 pass of the model computes, rounding included (`model_zoo/bounds/reach.py`),
over the ball that the judge accepts: epsilon and its tolerance. The bounds themselves are computed in float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from attacks.threat_model import ThreatModel
from benchmark.store.certificates import CERTIFIED, UNKNOWN
from model_zoo.bounds import smoothing
from model_zoo.bounds.agreement import refuse_disagreement
from model_zoo.bounds.crown_margins import best_margins, interval_margins, margins_by
from model_zoo.bounds.graph import Network, graph
from model_zoo.bounds.interval_bounds import Box, image_box
from model_zoo.bounds.milp import Program
from model_zoo.bounds.reach import interval_reaches

ELEMENTS = 2**26
"""Numbers that the largest step of a bound holds at a time: half a gigabyte."""
EXAMPLES = 10
"""Images on which the graph of a model must agree with it."""
Settings = Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """A model that something is to be proven of.

    Args:
        model: as it is judged: float32, in eval mode, frozen.
        shape: (C, H, W) of its images.
        batch_size: images of one pass.
        examples: (N, C, H, W) images on which its graph must agree with it; None for random ones.
    """

    model: nn.Module
    shape: tuple[int, ...]
    batch_size: int
    examples: Tensor | None = None

    @cached_property
    def network(self) -> Network:
        """Its graph in float64. Raises: InputError for what no bound is known for, or a graph of something else."""
        found, examples = graph(self.model, self.shape), self.examples
        if examples is None:
            device = found.nodes[-1].operation.weight.device  # type: ignore[union-attr]  # it ends in a linear layer
            examples = torch.rand(EXAMPLES, *self.shape, generator=torch.Generator().manual_seed(0)).to(device)
        refuse_disagreement(found, self.model, examples)
        return found

    @cached_property
    def program(self) -> Program:
        """The same for the solver. Raises: InputError for what it does not take."""
        return Program(self.network)


@dataclass(frozen=True)
class Asked:
    """The images that something is to be proven of, all classified correctly (for smoothing, any).

    Args:
        x: (N, C, H, W) in [0, 1]; y, index: (N,). threat: the ball around each. seed: of all draws.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    threat: ThreatModel
    seed: int

    def of(self, rows: Tensor) -> "Asked":
        """Some of the images, by their places (M,)."""
        return replace(self, x=self.x[rows], y=self.y[rows], index=self.index[rows])

    @property
    def box(self) -> Box:
        """All that the judge accepts under Linf, in float64."""
        return image_box(self.x.double(), self.threat.epsilon + self.threat.tolerance)


@dataclass(frozen=True)
class Proof:
    """What a method said of N images.

    Args:
        state: (N,) UNKNOWN, CERTIFIED or BROKEN.
        bound: (N,) float64 lower bounds of the least margin; of smoothing the L2 radius.
        witness: for each image a misclassified point (C, H, W) that was judged; None where there is none.
        prediction: (N,) of another classifier than the model, where it is one.
    """

    state: Tensor
    bound: Tensor
    witness: Sequence[Tensor | None]
    prediction: Tensor | None = None


Prove = Callable[[Subject, Asked, Settings], Proof]
Prepare = Callable[[Subject], object]
"""Makes what a method needs of a model. Raises: InputError for a model that it does not take."""


def with_bounds(subject: Subject) -> Network:
    """What all bounds need: the graph."""
    return subject.network


def with_program(subject: Subject) -> Program:
    """What the solver needs: the program of the graph."""
    return subject.program


def by_intervals(subject: Subject, asked: Asked, _settings: Settings) -> Proof:
    """Interval bound propagation.

    Source: Gowal et al., arXiv:1810.12715, Section 3.
    """
    return _in_parts(
        lambda part: interval_margins(subject.network, part.y, interval_reaches(subject.network, part.box)),
        subject,
        asked,
    )


def by_chords(subject: Subject, asked: Asked, _settings: Settings) -> Proof:
    """The convex outer bound: CROWN whose lines are parallel, and intervals where they are tighter.

    Source: Wong and Kolter, arXiv:1711.00851.
    """
    return _in_parts(lambda part: margins_by(subject.network, part.box, part.y, "chord"), subject, asked)


def by_crown(subject: Subject, asked: Asked, settings: Settings) -> Proof:
    """The best of CROWN's slopes, and optimised ones.

    Source: Zhang et al., arXiv:1811.00866; Xu et al., arXiv:2011.13824.
    """
    steps = int(settings["steps"])
    return _in_parts(lambda part: best_margins(subject.network, part.box, part.y, steps=steps)[0], subject, asked)


def by_smoothing(subject: Subject, asked: Asked, settings: Settings) -> Proof:
    """Randomised smoothing of the model as it is: of another classifier, each but for a probability of alpha.

    Under Linf the ball is taken into the L2 ball that holds it, of epsilon times the root of the number of pixels.

    Source: Cohen et al., arXiv:1902.02918; the ratio of norms: Carmon et al., arXiv:1905.13736, Table 2.
    """
    on_gpu = asked.x.device.type != "cpu"
    found = smoothing.certify(
        subject.model,
        asked.x,
        asked.index,
        sigma=settings["sigma"],
        selection=int(settings["n0"]),
        estimation=int(settings["n"]),
        alpha=settings["alpha"],
        seed=asked.seed,
        batch_size=max(subject.batch_size, 1000) if on_gpu else subject.batch_size,
    )
    holds = found.holds(asked.y, l2_radius(asked.threat, asked.x))
    state = torch.where(holds, CERTIFIED, UNKNOWN)
    return Proof(state, found.radius.cpu(), [None] * len(asked.y), found.prediction)


def l2_radius(threat: ThreatModel, x: Tensor) -> float:
    """The radius of the smallest L2 ball that holds the threat model around an image of x (N, C, H, W)."""
    within = threat.epsilon + threat.tolerance
    return within if threat.norm == "L2" else within * math.sqrt(x[0].numel())


def _in_parts(margins: Callable[[Asked], Tensor], subject: Subject, asked: Asked) -> Proof:
    """A proof by lower bounds of all margins, of as many images at a time as memory holds."""
    pixels = math.prod(subject.shape)
    size = max(1, ELEMENTS // (pixels * subject.network.largest))
    parts = torch.arange(len(asked.y)).split(size)
    with torch.no_grad():
        bound = torch.cat([least_margin(margins(part), part.y) for part in (asked.of(rows) for rows in parts)]).cpu()
    state = torch.where(bound > 0, CERTIFIED, UNKNOWN)
    return Proof(state, bound, [None] * len(asked.y))


def least_margin(margins: Tensor, y: Tensor) -> Tensor:
    """(N,) the least lower bound of a margin, of margins (N, K)."""
    return margins.scatter(1, y.unsqueeze(1), torch.inf).amin(1)
