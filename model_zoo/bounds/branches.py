"""Complete verification by branch and bound: CROWN, with activations split by the sign of their input.

A part of the box is where some inputs of activations have assumed signs. Those activations are linear there, and the
assumptions enter the bound by multipliers. A part whose bound is not positive is split in two once more.
"""

import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from model_zoo.bounds.crown import Slopes, leak_of, lower_bounds, read_by_activations, rule_slopes
from model_zoo.bounds.crown_margins import optimised
from model_zoo.bounds.graph import IMAGE, Network
from model_zoo.bounds.interval_bounds import Box
from model_zoo.bounds.operations import Activation
from model_zoo.bounds.reach import Reach
from model_zoo.bounds.verify import FOUND, INFEASIBLE, OUT_OF_TIME, Answer

PARTS = 16
"""Parts that are split at once."""
CANDIDATES = 6
"""Activations of a part that are tried before one of them is split."""
STEPS = 10
"""Of the slopes and multipliers of a part; of the whole box five times as many."""
RATE = 0.1
"""Of Adam, for both."""
TIGHTENING = 10
"""Steps of the slopes by which an input of an activation is bounded."""
CLOCK = time.thread_time
"""By which a search ends: a busy machine decides no less than an idle one."""
ELEMENTS = 2**23
"""Slopes of linear functions that climb at a time: some 500 megabytes with all that belongs to them."""


@dataclass(frozen=True)
class Parts:
    """P parts of the box of one image, and what bounds them; each by place of an activation.

    Args:
        signs: (P, ...) 1 or -1 where its input is assumed to be at least or at most 0, else 0.
        slopes: (P, 1, ...) of the lower line.
        multipliers: (P, 1, ...) at least 0, used where there is a sign.
    """

    signs: Slopes
    slopes: Slopes
    multipliers: Slopes

    def of(self, rows: Tensor) -> "Parts":
        """Some of them, by their places (M,)."""
        return Parts(*({at: of[rows] for at, of in each.items()} for each in self._all))

    @property
    def _all(self) -> tuple[Slopes, Slopes, Slopes]:
        return self.signs, self.slopes, self.multipliers

    @classmethod
    def joined(cls, parts: "Sequence[Parts]") -> "Parts":
        """Parts of the same box together."""
        sides = zip(*(part._all for part in parts), strict=True)
        return cls(*({at: torch.cat([one[at] for one in each]) for at in each[0]} for each in sides))


@dataclass(frozen=True)
class Branches:
    """A network whose margins are bounded part by part.

    Args:
        network: any.
    """

    network: Network

    def answer(self, reaches: Sequence[Reach], label: int, other: int, seconds: float) -> Answer:
        """Whether the logit of another class can reach that of the label.

        Args:
            reaches: of one image (N = 1), of every node, by any bound.
            seconds: of this thread's processor time, after which it is unknown.

        Source: Bunel et al., arXiv:1909.06588, Algorithm 1; bounds as in Wang et al., arXiv:2103.06624; what is split
            is chosen as by De Palma et al., arXiv:2104.06718, Section 4.
        Deviations: candidates are ordered by the height of the triangle around an activation; bounds of activations
            are those of the whole box, cut by the assumed signs.
        """
        end = CLOCK() + seconds
        margin = _Margin(self.network, reaches, label, other)
        waiting: list[tuple[float, int, Parts]] = []
        order = itertools.count()
        parts, steps, is_stuck = margin.whole, 5 * STEPS, False
        while True:
            parts, bound, points = margin.climbed(parts, steps)
            wrong = (margin.at(points) <= 0).nonzero()
            if len(wrong):
                return Answer(FOUND, points[wrong[0, 0]])
            is_open, can_split = ~(bound > 0), margin.heights(parts).amax(1) > 0
            is_stuck = is_stuck or bool((is_open & ~can_split).any())
            for row in (is_open & can_split).nonzero():
                heapq.heappush(waiting, (bound[row].item(), next(order), parts.of(row)))
            if not waiting:
                return Answer(OUT_OF_TIME if is_stuck else INFEASIBLE)
            if CLOCK() > end:
                return Answer(OUT_OF_TIME)
            taken = [heapq.heappop(waiting)[2] for _ in range(min(PARTS, len(waiting)))]
            parts, steps = margin.split(Parts.joined(taken)), STEPS


@dataclass(frozen=True)
class _Margin:
    """The margin of one class over the box of one image.

    Args:
        reaches: of every node (N = 1), of the whole box.
    """

    network: Network
    reaches: Sequence[Reach]
    label: int
    other: int

    @cached_property
    def places(self) -> list[int]:
        """Those of the activations."""
        return [at for at, node in enumerate(self.network.nodes) if isinstance(node.operation, Activation)]

    @cached_property
    def row(self) -> Tensor:
        """(1, 1, K) coefficients of the logits."""
        row = torch.zeros(1, 1, self.network.classes, dtype=torch.float64)
        row[..., self.label], row[..., self.other] = 1.0, -1.0
        return row

    @property
    def whole(self) -> Parts:
        """The whole box as one part."""
        slopes = {}
        for at in self.places:
            feed, operation = self.network.nodes[at].feeds[0], self.network.nodes[at].operation
            assert isinstance(operation, Activation)
            slopes[at] = rule_slopes(self.reaches[feed].box, leak_of(operation), "adaptive").unsqueeze(1)
        signs = {at: torch.zeros_like(slope[:, 0], dtype=torch.int8) for at, slope in slopes.items()}
        return Parts(signs, slopes, {at: torch.zeros_like(slope) for at, slope in slopes.items()})

    def at(self, points: Tensor) -> Tensor:
        """(P,) the margin at points (P, C, H, W), in exact arithmetic."""
        logits = self.network.outputs(points)[-1]
        return logits[:, self.label] - logits[:, self.other]

    def bound(self, parts: Parts, reaches: Sequence[Reach], seen: dict[int, Tensor] | None = None) -> Tensor:
        """(P,) lower bounds; `seen` as `lower_bounds` takes it.

        Args:
            reaches: as `cut` returns them.
        """
        signed = {at: parts.signs[at].unsqueeze(1) * of for at, of in parts.multipliers.items()}
        rows = self.row.expand(len(reaches[IMAGE].box.lower), -1, -1)
        return lower_bounds(
            self.network, rows, self.network.last, reaches, parts.slopes, multipliers=signed, seen=seen
        ).squeeze(1)

    def climbed(self, parts: Parts, steps: int) -> tuple[Parts, Tensor, Tensor]:
        """Parts by better slopes and multipliers, their best bounds (P,), and the points of the last (P, C, H, W)."""
        slopes = {at: of.clone().requires_grad_() for at, of in parts.slopes.items()}
        multipliers = {at: of.clone().requires_grad_() for at, of in parts.multipliers.items()}
        climbing, reaches = Parts(parts.signs, slopes, multipliers), self.cut(parts)
        optimiser = torch.optim.Adam([*slopes.values(), *multipliers.values()], lr=RATE)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.95)
        best: Tensor | None = None
        for _ in range(steps):
            with torch.enable_grad():
                bound = self.bound(climbing, reaches)
                gradients = torch.autograd.grad(-bound.sum(), [*slopes.values(), *multipliers.values()])
            best = bound.detach() if best is None else torch.maximum(best, bound.detach())
            for tensor, gradient in zip([*slopes.values(), *multipliers.values()], gradients, strict=True):
                tensor.grad = gradient
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for at, slope in slopes.items():
                    slope.clamp_(leak_of(self.network.nodes[at].operation), 1.0)  # type: ignore[arg-type]
                    multipliers[at].clamp_(min=0.0)
        found = Parts(parts.signs, *({at: of.detach() for at, of in each.items()} for each in (slopes, multipliers)))
        seen: dict[int, Tensor] = {}
        last = self.bound(found, reaches, seen)
        image = self.reaches[IMAGE].box
        points = image.center - image.radius * seen[IMAGE][:, 0].view(-1, *image.center.shape[1:]).sign()
        return found, last if best is None else torch.maximum(best, last), points

    def heights(self, parts: Parts) -> Tensor:
        """(P, A) of the triangles around all activations, as far as they can lower the bound; 0 of stable ones."""
        seen: dict[int, Tensor] = {}
        self.bound(parts, self.cut(parts), seen)
        found = []
        for at, box in self._boxes(parts).items():
            lower, upper = box.lower.clamp_max(0), box.upper.clamp_min(0)
            height = -lower * upper / (upper - lower).clamp_min(torch.finfo(lower.dtype).tiny)
            found.append((seen[at][:, 0].abs() * height).flatten(1))
        return torch.cat(found, 1)

    def split(self, parts: Parts) -> Parts:
        """Each in two, by the sign of one activation's input: that after which the lesser bound is the highest."""
        heights = self.heights(parts)
        high, candidates = heights.topk(min(CANDIDATES, heights.shape[1]))
        tried = [self._with_sign(parts, activation, sign) for activation in candidates.T for sign in (1, -1)]
        together = Parts.joined(tried)
        bounds = self.bound(together, self.cut(together)).view(len(candidates.T), 2, -1)
        lesser = torch.where(high.T > 0, bounds.amin(1), -torch.inf)
        chosen = candidates.gather(1, lesser.argmax(0).unsqueeze(1)).squeeze(1)
        return Parts.joined([self._with_sign(parts, chosen, sign) for sign in (1, -1)])

    def _with_sign(self, parts: Parts, activation: Tensor, sign: int) -> Parts:
        """The same where one activation of each, by its number (P,) among all, has an input of this sign."""
        flat = torch.cat([of.flatten(1) for of in parts.signs.values()], 1)
        flat[torch.arange(len(flat)), activation] = sign
        pieces = flat.split([of[0].numel() for of in parts.signs.values()], 1)
        signs = {at: piece.view_as(parts.signs[at]) for at, piece in zip(parts.signs, pieces, strict=True)}
        return Parts(signs, parts.slopes, parts.multipliers)

    def _boxes(self, parts: Parts) -> dict[int, Box]:
        """By place of an activation, where its input lies."""
        found = {}
        for at, signs in parts.signs.items():
            box = self.reaches[self.network.nodes[at].feeds[0]].box
            lower = torch.where(signs > 0, box.lower.clamp_min(0), box.lower)
            found[at] = Box(lower, torch.where(signs < 0, box.upper.clamp_max(0), box.upper))
        return found

    def cut(self, parts: Parts) -> list[Reach]:
        """What every node can put out, of each part."""
        count = len(next(iter(parts.signs.values())))
        reaches = [_expanded(reach, count) for reach in self.reaches]
        for at, box in self._boxes(parts).items():
            feed = self.network.nodes[at].feeds[0]
            reaches[feed] = reaches[feed].within(box)
        return reaches


def _expanded(reach: Reach, count: int) -> Reach:
    """That of one image (N = 1), so many times."""

    def times(of: Tensor) -> Tensor:
        return of.expand(count, *of.shape[1:])

    return Reach(
        Box(times(reach.box.lower), times(reach.box.upper)), None if reach.noise is None else times(reach.noise)
    )


def tightened(network: Network, reaches: Sequence[Reach], steps: int = TIGHTENING) -> list[Reach]:
    """What every node can put out, of one image (N = 1), by slopes that climb for each input of an activation.

    Args:
        reaches: by any bound.
        steps: of the slopes.

    Source: Xu et al., arXiv:2011.13824, Section 3.1.
    """
    reaches = list(reaches)
    start: dict[int, Tensor] = {}
    read = read_by_activations(network)
    for place, node in enumerate(network.nodes):
        if isinstance(node.operation, Activation):
            start[place] = rule_slopes(reaches[node.feeds[0]].box, leak_of(node.operation), "adaptive")
        if place not in read or not start:
            continue
        box = reaches[place].box
        unstable = ((box.lower < 0) & (box.upper > 0)).flatten().nonzero().squeeze(1)
        lower, upper = box.lower.flatten().clone(), box.upper.flatten().clone()
        for some in unstable.split(max(1, ELEMENTS // (2 * network.largest))) if len(unstable) else ():
            unit = torch.zeros(len(some), lower.numel(), dtype=lower.dtype)
            unit[torch.arange(len(some)), some] = 1
            rows = torch.cat([unit, -unit]).view(1, -1, *node.shape)
            slopes = {at: torch.stack([of] * len(rows[0]), 1) for at, of in start.items()}
            low, up = optimised(network, rows, place, reaches, slopes, steps)[0].chunk(2)
            lower[some], upper[some] = torch.maximum(lower[some], low), torch.minimum(upper[some], -up)
        reaches[place] = reaches[place].within(Box(lower.view_as(box.lower), upper.view_as(box.upper)))
    return reaches
