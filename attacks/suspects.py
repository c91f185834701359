"""What a searched classifier says of the points that it is asked about, until the judge is asked about the suspects.

To find out which points are misclassified means to wait for the device. So a few queries are gathered first, and an
image is charged for its passes up to the query that broke it, as if every query had been looked at.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from attacks.losses import dlr
from attacks.oracle import Query
from attacks.several_points import first_of_each
from attacks.tally import Tally
from attacks.threat_model import ThreatModel

GATHERED = 10
"""Queries after which suspects are judged at the latest; so many iterates are kept."""
LARGEST = 2**26
"""Pixels of all iterates that are kept; of large images fewer are."""


@dataclass(frozen=True)
class _Answer:
    """A query, which of its points are suspect (M,), and how many steps were taken before it since `begin`.

    Where queries are counted the suspects are the wrong answers, but of images that are broken: not by transfer.
    """

    query: Query
    suspect: Tensor
    step: int


class Suspects:
    """The queries about the images of one batch, between two changes of what is asked about them.

    Args:
        judge: as of the loop.
        reads_last: as of the tally: whether an image goes on after it broke.
        judges_all: whether every point is suspect, since another classifier decides.
        tracks_closest, counts_queries: as of the tally.
        settle: called before the judge is asked.

    Attributes:
        is_stale: some image broke, so that nothing more may be asked about it.
    """

    def __init__(
        self,
        tally: Tally,
        judge: Callable[[Tensor, Tensor], Tensor],
        threat: ThreatModel,
        *,
        reads_last: bool,
        judges_all: bool,
        tracks_closest: bool,
        counts_queries: bool,
        settle: Callable[[], None],
    ) -> None:
        self._tally, self._judge, self._threat, self._settle = tally, judge, threat, settle
        self._reads_last, self._judges_all = reads_last, judges_all
        self._tracks_closest, self._counts_queries = tracks_closest, counts_queries
        self._gathered: list[_Answer] = []

    def begin(self, position: Tensor, x: Tensor, y: Tensor, steps: Tensor) -> None:
        """Images x (M, C, H, W), y (M,) at these positions are at these steps (M,); all before is charged."""
        assert not self._gathered
        self._position, self._x, self._y, self._steps = position, x, y, steps
        self._asked = self._tally.asked(position, steps)
        self._news = self._tally.unbroken(position, steps)
        self._all_news = bool(self._news.all())
        self._passes = [[0, 0]]
        self._answers = 0
        self._of_some: dict[str, Tensor] = {}
        self._stops: Tensor | None = None
        self.is_stale = False

    def observe(self, query: Query) -> None:
        """Charge a query, and keep it until the judge is asked."""
        rows, now = query.rows, len(self._passes) - 1
        if rows is None:
            self._passes[now][0] += query.forwards
            self._passes[now][1] += query.backwards
        else:
            self._add("forwards", rows, query.forwards)
            self._add("backwards", rows, query.backwards)
        if self._tracks_closest:
            asked = slice(None) if rows is None else rows
            inside = self._threat.contains(query.points, self._x[asked])
            margin = torch.where(inside, -dlr(query.logits, self._y[asked]), torch.inf)
            self._tally.record_margin(self._position[asked], self._asked[asked], margin)
        if self._judges_all:
            suspect = self._news if rows is None else self._news[rows]
        else:
            suspect = query.logits.argmax(1) != (self._y if rows is None else self._y[rows])
            if not self._all_news:
                suspect &= self._news if rows is None else self._news[rows]
        self._gathered.append(_Answer(query, suspect, now))
        if len(self._gathered) == GATHERED or len(self._gathered) * query.points.numel() > LARGEST:
            self.look()

    def step_taken(self, *, waits: bool) -> None:
        """A step is over; `waits`: whether suspects may wait for those of the next steps."""
        of_some = any(answer.query.rows is not None for answer in self._gathered)  # these are not charged step by step
        if of_some or not waits:
            self.look()
        self._passes.append([0, 0])

    def look(self) -> None:
        """Have the suspects judged that would be news: misclassified, and inside the threat model."""
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        flags = [answer.suspect for answer in gathered]
        found = (flags[0] if len(flags) == 1 else torch.cat(flags)).nonzero().squeeze(1)
        if not len(found):  # the usual case of a robust model, so found out first
            if self._counts_queries:
                self._count(gathered)
            return
        self._settle()
        counts = self._snapshots(gathered) if self._counts_queries else None
        ends = list(accumulate(len(flag) for flag in flags))
        there = found.tolist()
        parts = []
        for answer, start, end in zip(gathered, [0, *ends], ends, strict=False):
            here = found[bisect_left(there, start) : bisect_left(there, end)] - start
            if len(here):
                rows = here if answer.query.rows is None else answer.query.rows[here]
                parts.append((answer.query.points[here], rows, torch.full_like(here, answer.step)))
        points, rows, taken = (torch.cat(part) for part in zip(*parts, strict=True))
        self._decide(points, rows, taken, None if counts is None else counts[found])

    def settle(self) -> None:
        """Charge all that has not been charged; to be followed by `begin`."""
        self.look()
        self._settle_counts()
        for_all: list[Tensor | int] = [sum(passes) for passes in zip(*self._passes, strict=True)]
        if self._stops is not None:
            stops, device = self._stops.clamp_max(len(self._passes) - 1), self._stops.device
            so_far = zip(*(accumulate(passes) for passes in zip(*self._passes, strict=True)), strict=True)
            for_all = list(torch.tensor(list(so_far), device=device)[stops].unbind(1))
        forwards, backwards = (
            passes + self._of_some.get(name, 0) for passes, name in zip(for_all, ("forwards", "backwards"), strict=True)
        )
        self._tally.charge(self._position, self._asked, forwards, backwards)

    def _decide(self, points: Tensor, row: Tensor, taken: Tensor, counts: Tensor | None) -> None:
        """Have points (S, C, H, W) judged, one after the other of each image, until it breaks.

        Args:
            row: (S,) of the batch; taken: (S,) the steps since `begin`; counts: (S, R, 2) as `Tally.count` returns.
        """
        where, steps = self._position[row], self._steps[row] + taken
        left = self._threat.contains(points, self._x[row]).nonzero().squeeze(1)
        while len(left := left[self._tally.unbroken(where[left], steps[left])]):
            now = first_of_each(where[left])
            first = left[now]
            wrong = self._judge(points[first], where[first])
            self._tally.record_query(where[first], steps[first], wrong, None if counts is None else counts[first])
            self._stop(row[first], taken[first], wrong >= 0)
            left = left[~now]
        self._news = self._tally.unbroken(self._position, self._steps + (len(self._passes) - 1))
        self._all_news = False

    def _stop(self, row: Tensor, taken: Tensor, broken: Tensor) -> None:
        """What is asked about these rows (S,) after so many steps costs nothing where they broke."""
        if self._reads_last or not broken.any():
            return
        if self._stops is None:
            self._stops = torch.full_like(self._position, len(self._passes) + GATHERED)
        self._stops[row[broken]] = taken[broken]
        self.is_stale = True

    def _add(self, what: str, rows: Tensor, amount: int) -> None:
        """Add a number for some rows (M,) of the batch, which may occur several times."""
        if amount:
            total = self._of_some.setdefault(what, torch.zeros_like(self._position))
            total.index_add_(0, rows, torch.ones_like(rows), alpha=amount)

    def _count(self, gathered: Sequence[_Answer]) -> None:
        """Count answers of which none is suspect."""
        for answer in gathered:
            if answer.query.rows is None:
                self._answers += answer.query.forwards
            else:
                self._add("answers", answer.query.rows, answer.query.forwards)

    def _snapshots(self, gathered: Sequence[_Answer]) -> Tensor:
        """Count answers, and return (A, R, 2) what `Tally.count` says at each of their points."""
        self._settle_counts()
        counts = []
        for answer in gathered:
            rows = slice(None) if answer.query.rows is None else answer.query.rows
            where, asked = self._position[rows], self._asked[rows]
            is_once, wrong = answer.query.rows is None, answer.suspect
            counts.append(self._tally.count(where, asked, wrong, answer.query.forwards, is_once=is_once))
        return torch.cat(counts)

    def _settle_counts(self) -> None:
        answers = self._answers + self._of_some.pop("answers", 0)
        if isinstance(answers, Tensor) or answers:
            self._tally.count_correct(self._position, self._asked, answers)
        self._answers = 0
