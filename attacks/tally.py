"""What a loop learns of each image of an attack: verdicts, passes and queries, at each step count that is read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.several_points import sums_so_far
from attacks.spec import EarlyStopping


@dataclass(frozen=True)
class Reading:
    """What one step count of an attack showed, image by image.

    Args:
        steps: the step count that is read.
        adversarial_class: (N,) int64, of the first judged iterate of any restart up to this step that is misclassified;
            -1 where there is none.
        correct_last: (N,) bool, correct at this iterate of every restart; None where it was not asked for.
        forwards, backwards: (N,) int64 passes spent on each image, the judge's included.
        closest: (N,) the least DLR margin of a query inside the threat model up to this step; None where nobody asked.
        queries: (N,) int64, the searched model's answers up to and including the one that broke the image, or all up to
            this step; bad_queries: (N,) int64, those of them whose class was not the image's. None where they are not
            counted: of an attack with gradients, and by transfer.
    """

    steps: int
    adversarial_class: Tensor
    correct_last: Tensor | None
    forwards: Tensor
    backwards: Tensor
    closest: Tensor | None = None
    queries: Tensor | None = None
    bad_queries: Tensor | None = None

    @property
    def correct_any(self) -> Tensor:
        """(N,) bool, correct at every judged iterate of every restart up to this step."""
        return self.adversarial_class < 0


class Tally:
    """What is known of each image (N rows) at each reading (R columns).

    Args:
        images: N; readings: the R step counts, ascending.
        reads_last: whether the last iterate is read beside any iterate.
        tracks_closest: whether the least logit margin is kept, which early stopping and a second search ask for.
        counts_queries: whether answers, and those that are not the image's class, are counted up to the first break.
    """

    def __init__(
        self,
        images: int,
        readings: Sequence[int],
        *,
        reads_last: bool,
        tracks_closest: bool,
        counts_queries: bool,
        device: torch.device,
    ) -> None:
        self.readings = torch.tensor(readings, device=device)
        self._reads_last = reads_last
        shape = (images, len(readings))
        self._adversarial_class = torch.full(shape, -1, device=device)
        self._broken_last = torch.zeros(shape, dtype=torch.bool, device=device)
        self._forwards = torch.zeros(shape, dtype=torch.int64, device=device)
        self._backwards = torch.zeros(shape, dtype=torch.int64, device=device)
        self._closest = torch.full(shape, torch.inf, device=device) if tracks_closest else None
        counts = (*shape, 2)  # all answers, and those of another class than the image's
        self._queries = torch.zeros(counts, dtype=torch.int64, device=device) if counts_queries else None
        self._at_last_check = torch.full((images,), torch.inf, device=device)
        self._stopped = torch.zeros((images, 1), dtype=torch.bool, device=device)

    def decided(self, position: Tensor) -> Tensor:
        """(M, R): nothing that these images could still show would change the reading, or the attack stopped."""
        decided = self._adversarial_class[position] >= 0
        decided = decided & self._broken_last[position] if self._reads_last else decided
        return decided | self._stopped[position]

    def asked(self, position: Tensor, steps: Tensor) -> Tensor:
        """(M, R): the reading lies ahead of these images and is undecided."""
        return (steps[:, None] < self.readings) & ~self.decided(position)

    def unbroken(self, position: Tensor, steps: Tensor) -> Tensor:
        """(M,): a misclassified iterate would be news to some reading ahead."""
        return (self.asked(position, steps) & (self._adversarial_class[position] < 0)).any(1)

    def is_open(self, position: Tensor) -> Tensor:
        """(M,): some reading of these images is undecided, so another restart may tell more."""
        return ~self.decided(position).all(1)

    def charge(self, position: Tensor, asked: Tensor, forwards: Tensor | int, backwards: Tensor | int) -> None:
        """Charge passes, of each image (M,) or of all, to every reading (M, R) that asked for the steps.

        So each reading costs what it would have cost alone.
        """
        for total, passes in ((self._forwards, forwards), (self._backwards, backwards)):
            each = passes[:, None] if isinstance(passes, Tensor) else passes
            total.index_add_(0, position, asked.long() * each)

    def count_correct(self, position: Tensor, asked: Tensor, answers: Tensor | int) -> None:
        """Count answers, of each image (M,) or for all, that were of the image's class, at open readings (M, R)."""
        assert self._queries is not None
        is_open = asked & (self._adversarial_class[position] < 0)
        each = answers[:, None] if isinstance(answers, Tensor) else answers
        self._queries[:, :, 0].index_add_(0, position, is_open.long() * each)

    def count(self, position: Tensor, asked: Tensor, wrong: Tensor, passes: int, *, is_once: bool) -> Tensor:
        """Count answers of `passes` passes each, of another class than the image's or not (M,), at open readings.

        Args:
            is_once: whether no image occurs twice.

        Returns: (M, R, 2) what is counted of each image up to and including its answer, in all and of another class.
        """
        assert self._queries is not None
        each = passes * torch.stack([torch.ones_like(position), wrong.long()], 1)
        counts = self._queries[position] + (each if is_once else sums_so_far(position, each))[:, None]
        is_open = asked & (self._adversarial_class[position] < 0)
        self._queries.index_add_(0, position, is_open[:, :, None] * each[:, None])
        return counts

    def record_margin(self, position: Tensor, asked: Tensor, margin: Tensor) -> None:
        """A query with this logit margin (M,), for every reading (M, R) that asked for the step."""
        assert self._closest is not None
        margins = torch.where(asked, margin[:, None], torch.inf).to(self._closest.dtype)
        self._closest.scatter_reduce_(0, position[:, None].expand_as(margins), margins, "amin")

    def check(self, position: Tensor, steps: Tensor, stopping: EarlyStopping) -> None:
        """Stop on the images at a check whose least logit margin has not fallen enough since the check before."""
        assert self._closest is not None
        checks = torch.tensor(stopping.checks, device=steps.device)
        here = position[(steps[:, None] == checks).any(1)]
        margin = self._closest[here, -1]
        self._stopped[here, 0] |= margin > (1 - stopping.least_decrease) * self._at_last_check[here]
        self._at_last_check[here] = margin

    def record_query(self, position: Tensor, steps: Tensor, wrong: Tensor, counts: Tensor | None = None) -> None:
        """The wrong class, or -1, of judged points, queried on the way from `steps` to the next; what `count` said."""
        before = self._adversarial_class[position]
        news = self.asked(position, steps) & (before < 0)
        self._forwards[position] += news.long()
        self._adversarial_class[position] = torch.where(news, wrong[:, None], before)
        if self._queries is not None and counts is not None:
            broken = (news & (wrong >= 0)[:, None])[:, :, None]
            self._queries[position] = torch.where(broken, counts, self._queries[position])

    def record_reading(self, reading: int, position: Tensor, wrong: Tensor) -> None:
        """A judged iterate at which a reading is due; later readings learn of it by their own query, as if alone."""
        self._forwards[position, reading] += 1
        self._broken_last[position, reading] |= wrong >= 0
        before = self._adversarial_class[position, reading]
        self._adversarial_class[position, reading] = torch.where(before < 0, wrong, before)

    def results(self) -> list[Reading]:
        """One Reading a column."""
        return [
            Reading(
                steps=int(steps),
                adversarial_class=self._adversarial_class[:, r],
                correct_last=~self._broken_last[:, r] if self._reads_last else None,
                forwards=self._forwards[:, r],
                backwards=self._backwards[:, r],
                closest=None if self._closest is None else self._closest[:, r],
                queries=None if self._queries is None else self._queries[:, r, 0],
                bad_queries=None if self._queries is None else self._queries[:, r, 1],
            )
            for r, steps in enumerate(self.readings.tolist())
        ]
