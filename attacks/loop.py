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
from attacks.spec import AttackSpec, Recurrence
from attacks.tally import Reading, Tally
from attacks.threat_model import ThreatModel

Judge = Callable[[Tensor, Tensor], Tensor]
"""Points (M, C, H, W), their images' positions (M,) to (M,) int64: wrong classes, -1 where one is still correct."""


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
    counts_queries = attack.is_black_box and not judge_every_iterate
    tally = Tally(
        len(x),
        readings,
        reads_last=attack.reads_last,
        tracks_closest=tracks_closest,
        counts_queries=counts_queries,
        device=x.device,
    )
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
        counts = tally.count(where, open_readings[asked], suspect, query.forwards) if counts_queries else None
        rows = suspect.nonzero().squeeze(1)
        if not len(rows):  # the usual case of a robust model, so found out first
            return
        rows = rows[threat.contains(query.points[rows], before.x[asked][rows])]
        while len(rows := rows[tally.unbroken(where[rows], steps[rows])]):
            now = first_of_each(where[rows])  # a query may name several points of an image: one after the other
            first = rows[now]
            wrong = judge(query.points[first], where[first])
            tally.record_query(where[first], steps[first], wrong, None if counts is None else counts[first])
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
