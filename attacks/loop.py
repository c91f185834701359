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
from attacks.oracle import Classifier, Oracle
from attacks.rejection import as_label
from attacks.spec import AttackSpec, Recurrence
from attacks.suspects import Suspects
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

    def reads(logits: Tensor, rows: Tensor | None) -> Tensor:
        assert batch is not None
        y_asked = batch.state.y if rows is None else batch.state.y[rows]
        return logits if classes is None else as_label(logits, y_asked, classes)

    oracle = Oracle(
        classifier,
        threat,
        precision=precision,
        eot=eot,
        watch=lambda query: suspects.observe(query),
        reads=None if classes is None else reads,
        demands_finite=True,
        tells_losses=False,
    )
    suspects = Suspects(
        tally,
        judge,
        threat,
        reads_last=attack.reads_last,
        judges_all=judge_every_iterate,
        tracks_closest=tracks_closest,
        counts_queries=counts_queries,
        settle=oracle.settle,
    )
    waits = may_wait(attack, x.device) and not judge_every_iterate  # there every point is suspect
    params = attack.step_params
    stops = {*readings, *(attack.early_stopping.checks if attack.early_stopping else ())}
    while batch is not None or waiting:
        free = batch_size if batch is None else batch_size - len(batch.places)
        if free and waiting:
            entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            fresh = _enter(attack, x, y, index, threat, seed, entering)
            batch = fresh if batch is None else _join(batch, fresh)
        assert batch is not None
        suspects.begin(batch.position, batch.state.x, batch.state.y, batch.state.steps)

        reached: set[int] = set()
        while reached.isdisjoint(stops) and not suspects.is_stale:
            oracle.steps_taken = batch.levels
            batch = batch.after(attack.method.step(oracle, batch.state, **params))
            reached = set(batch.levels)
            suspects.step_taken(waits=waits)
            if not reached.isdisjoint(stops):
                suspects.look()
            progress(len(batch.places))
        suspects.settle()
        oracle.settle()

        for reading, steps in enumerate(readings):
            if steps in reached:
                rows = ((batch.state.steps == steps) & ~tally.decided(batch.position)[:, reading]).nonzero().squeeze(1)
                if len(rows):
                    where = batch.position[rows]
                    tally.record_reading(reading, where, judge(batch.state.x_adv[rows], where))
        if attack.early_stopping is not None:
            tally.check(batch.position, batch.state.steps, attack.early_stopping)

        over = ~tally.asked(batch.position, batch.state.steps).any(1)
        if over.any():
            again = (over & tally.is_open(batch.position)).tolist()
            waiting.extend(
                (place, restart + 1)
                for place, restart, is_open in zip(batch.places, batch.restarts, again, strict=True)
                if is_open and restart + 1 < attack.restarts
            )
            batch = batch.of((~over).nonzero().squeeze(1))
    return tally.results()


def may_wait(attack: AttackSpec, device: torch.device) -> bool:
    """Whether suspects of several steps are judged at once.

    Until then an image that broke goes on: for nothing, unless its last iterate is read. To ask a CPU costs less than a
    step, to ask a GPU more.
    """
    return attack.reads_last or device.type != "cpu"


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
    """Images under attack.

    Args:
        places: their positions in the caller's arrays; position: (N,) the same on the device.
        restarts, steps: the restart each is at, and the steps taken of it; known here, so that no device is asked.
        state: the attack's own.
        levels: all of `steps`.
    """

    places: list[int]
    position: Tensor
    restarts: list[int]
    steps: list[int]
    state: Any
    levels: frozenset[int]

    def after(self, state: Any) -> "_Batch":
        """The same images a step later."""
        return replace(
            self, steps=[n + 1 for n in self.steps], state=state, levels=frozenset(n + 1 for n in self.levels)
        )

    def of(self, rows: Tensor) -> "_Batch | None":
        """Some of the images; None where there are none."""
        kept = rows.tolist()
        if not kept:
            return None
        places, restarts, steps = ([values[row] for row in kept] for values in (self.places, self.restarts, self.steps))
        return _Batch(places, self.position[rows], restarts, steps, take(self.state, rows), frozenset(steps))


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
    state = attack.method.init(x[position], y[position], threat, draws, **attack.init_params)
    places, restarts = (list(values) for values in zip(*entering, strict=True))
    return _Batch(places, position, restarts, [0] * len(places), state, frozenset({0}))


def _join(first: _Batch, second: _Batch) -> _Batch:
    """Two batches, one after the other."""
    return _Batch(
        first.places + second.places,
        torch.cat([first.position, second.position]),
        first.restarts + second.restarts,
        first.steps + second.steps,
        _stack(first.state, second.state),
        first.levels | second.levels,
    )


def take(state: Any, rows: Tensor | slice) -> Any:
    """The given rows of a dataclass of tensors, nested ones included."""
    if isinstance(state, Tensor):
        return state[rows]
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: take(getattr(state, f.name), rows) for f in fields(state)})
    return state


def _stack(first: Any, second: Any) -> Any:
    """Two dataclasses of tensors, one below the other; what is no tensor is the same in both."""
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    if is_dataclass(first) and not isinstance(first, type):
        joined = {f.name: _stack(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)}
        return replace(first, **joined)
    return first
