"""The one loop around every attack: it advances a batch, has points judged, and keeps the batch full.

An attack knows nothing of batches, budgets, judging or restarts; its state is a frozen dataclass of tensors whose first
axis is the image. The loop takes images out when they are decided and puts waiting ones in their place.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.losses import dlr
from attacks.oracle import Classifier, Oracle, Query
from attacks.rejection import as_label
from attacks.several_points import first_of_each
from attacks.spec import AttackSpec, EarlyStopping, Recurrence
from attacks.threat_model import ThreatModel

Judge = Callable[[Tensor, Tensor], Tensor]
"""Points (M, C, H, W), their images' positions (M,) to (M,) int64: wrong classes, -1 where one is still correct."""


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
    """

    steps: int
    adversarial_class: Tensor
    correct_last: Tensor | None
    forwards: Tensor
    backwards: Tensor
    closest: Tensor | None = None

    @property
    def correct_any(self) -> Tensor:
        """(N,) bool, correct at every judged iterate of every restart up to this step."""
        return self.adversarial_class < 0


def run(
    attack: AttackSpec,
    classifier: Classifier,
    judge: Judge,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    *,
    readings: Sequence[int],
    seed: int,
    batch_size: int,
    judge_every_iterate: bool = False,
    tracks_closest: bool = False,
    precision: torch.dtype = torch.float32,
    eot: int = 1,
    classes: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Reading]:
    """Attack images and read one trajectory at several step counts.

    Args:
        attack: a recurrence; its own step count is not used.
        classifier: what the attack searches on.
        judge: what decides; it may be another classifier (transfer).
        x: (N, C, H, W) in [0, 1], all correctly classified by the judge. y, index: (N,).
        readings: step counts, ascending.
        seed: of the draws, which belong to the images.
        batch_size: how many images are attacked at a time; it changes no draw.
        judge_every_iterate: for transfer, where the searched classifier's own logits tell nothing of the judge.
        tracks_closest: whether the readings have the least margin that the attack reached.
        precision, eot: of the oracle.
        classes: how many, where the classifier may have a logit more, by which it rejects an image.
        progress: called after every step with the number of images that took it.

    Returns: a Reading for each step count.
    """
    assert isinstance(attack.method, Recurrence)
    tracks_closest = tracks_closest or attack.early_stopping is not None
    tally = _Tally(len(x), readings, reads_last=attack.reads_last, tracks_closest=tracks_closest, device=x.device)
    waiting = deque((position, 0) for position in range(len(x)))
    batch: _Batch | None = None

    def observe(query: Query) -> None:
        """Count a query, and have the points judged that would be news: misclassified, and inside the threat model."""
        asked = slice(None) if query.rows is None else query.rows
        where, steps = position[asked], before.steps[asked]
        tally.charge(where, open_readings[asked], query)
        if tracks_closest:
            inside = threat.contains(query.points, before.x[asked])
            margin = torch.where(inside, -dlr(query.logits, before.y[asked]), torch.inf)
            tally.record_margin(where, open_readings[asked], margin)
        suspect = torch.ones_like(where, dtype=torch.bool)
        if not judge_every_iterate:
            suspect = query.logits.argmax(1) != before.y[asked]
        rows = suspect.nonzero().squeeze(1)
        if not len(rows):  # the usual case of a robust model, so found out first
            return
        rows = rows[threat.contains(query.points[rows], before.x[asked][rows])]
        while len(rows := rows[tally.unbroken(where[rows], steps[rows])]):
            now = first_of_each(where[rows])  # a query may name several points of an image: one after the other
            tally.record_query(where[rows[now]], steps[rows[now]], judge(query.points[rows[now]], where[rows[now]]))
            rows = rows[~now]

    def reads(logits: Tensor, rows: Tensor | None) -> Tensor:
        y_asked = before.y if rows is None else before.y[rows]
        return logits if classes is None else as_label(logits, y_asked, classes)

    oracle = Oracle(classifier, threat, precision=precision, eot=eot, watch=observe, reads=reads, demands_finite=True)
    params = attack.step_params
    while batch is not None or waiting:
        free = batch_size if batch is None else batch_size - len(batch.position)
        if free and waiting:
            entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            fresh = _enter(attack, x, y, index, threat, seed, entering)
            batch = fresh if batch is None else _join(batch, fresh)
        assert batch is not None

        position, before = batch.position, batch.state
        open_readings = tally.asked(position, before.steps)
        after = attack.method.step(oracle, before, **params)
        for reading, steps in enumerate(readings):
            rows = ((after.steps == steps) & ~tally.decided(position)[:, reading]).nonzero().squeeze(1)
            if len(rows):
                tally.record_reading(reading, position[rows], judge(after.x_adv[rows], position[rows]))

        if attack.early_stopping is not None:
            tally.check(position, after.steps, attack.early_stopping)
        progress(len(position))
        batch = _Batch(position, batch.restart, after)
        over = ~tally.asked(position, after.steps).any(1)
        if over.any():
            for place, restart in zip(position[over].tolist(), batch.restart[over].tolist(), strict=True):
                if restart + 1 < attack.restarts and tally.is_open(place):
                    waiting.append((place, restart + 1))
            batch = None if over.all() else take(batch, (~over).nonzero().squeeze(1))
    return tally.results()


def run_steps(
    method: Recurrence,
    oracle: Oracle,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    steps: int,
    init_params: Mapping[str, Any],
    step_params: Mapping[str, Any],
) -> Tensor:
    """The same recurrence a fixed number of times, unjudged, as trainers want it: (N, C, H, W) in the threat model."""
    state = method.init(x, y, oracle.threat, draws, **init_params)
    for _ in range(steps):
        state = method.step(oracle, state, **step_params)
    x_adv: Tensor = state.x_adv
    return x_adv.detach()


@dataclass(frozen=True)
class _Batch:
    """Images under attack: their positions in the caller's arrays, the restart each is at, the attack's own state."""

    position: Tensor
    restart: Tensor
    state: Any


class _Tally:
    """What is known of each image (N rows) at each reading (R columns).

    Args:
        images: N; readings: the R step counts, ascending.
        reads_last: whether the last iterate is read beside any iterate.
        tracks_closest: whether the least logit margin is kept, which early stopping and a second search ask for.
    """

    def __init__(
        self, images: int, readings: Sequence[int], *, reads_last: bool, tracks_closest: bool, device: torch.device
    ) -> None:
        self.readings = torch.tensor(readings, device=device)
        self._reads_last = reads_last
        shape = (images, len(readings))
        self._adversarial_class = torch.full(shape, -1, device=device)
        self._broken_last = torch.zeros(shape, dtype=torch.bool, device=device)
        self._forwards = torch.zeros(shape, dtype=torch.int64, device=device)
        self._backwards = torch.zeros(shape, dtype=torch.int64, device=device)
        self._closest = torch.full(shape, torch.inf, device=device) if tracks_closest else None
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

    def is_open(self, position: int) -> bool:
        """Some reading of this image is undecided, so another restart may tell more."""
        return not bool(self.decided(torch.tensor([position], device=self.readings.device)).all())

    def charge(self, position: Tensor, asked: Tensor, query: Query) -> None:
        """Charge a query to every reading (M, R) that asked for the step: each costs what it would have cost alone."""
        self._forwards.index_add_(0, position, asked.long() * query.forwards)
        self._backwards.index_add_(0, position, asked.long() * query.backwards)

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

    def record_query(self, position: Tensor, steps: Tensor, wrong: Tensor) -> None:
        """The wrong class, or -1, of a judged point, queried on the way from `steps` to the next."""
        before = self._adversarial_class[position]
        news = self.asked(position, steps) & (before < 0)
        self._forwards[position] += news.long()
        self._adversarial_class[position] = torch.where(news, wrong[:, None], before)

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
            )
            for r, steps in enumerate(self.readings.tolist())
        ]


def _enter(
    attack: AttackSpec,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    seed: int,
    entering: Sequence[tuple[int, int]],
) -> _Batch:
    """The initial states of (position, restart) pairs."""
    position, restart = torch.tensor(entering, device=x.device).unbind(1)
    draws = Draws.start(seed, index[position], restart)
    assert isinstance(attack.method, Recurrence)
    return _Batch(position, restart, attack.method.init(x[position], y[position], threat, draws, **attack.init_params))


def take(state: Any, rows: Tensor | slice) -> Any:
    """The given rows of a dataclass of tensors, nested ones included."""
    if isinstance(state, Tensor):
        return state[rows]
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: take(getattr(state, f.name), rows) for f in fields(state)})
    return state


def _join(first: Any, second: Any) -> Any:
    """Two dataclasses of tensors, one below the other; what is no tensor is the same in both."""
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    if is_dataclass(first) and not isinstance(first, type):
        joined = {f.name: _join(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)}
        return replace(first, **joined)
    return first
