"""This harness beside its peers: the same model and images, alternating, in one run, with what each attack achieved."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from attacks.errors import InputError
from attacks.judge import judge, predict
from attacks.oracle import CountingClassifier, Oracle
from attacks.out_of_memory import is_out_of_memory
from attacks.pyautoattack_adapter import FEWEST_CLASSES
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, task_size
from benchmark.data.split import Split, take
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.search_copy import search_copy
from benchmark.report.tables import write_csv
from benchmark.speed.peers import PEERS, Peer
from benchmark.speed.training_speed import Epoch, our_epoch, usual_epoch
from benchmark.suites.case import EvalCase
from model_zoo.files.atomic import atomic_write, file_of

HARNESS = "this harness"
CONTESTS = ("pgd-20", "mi-fgsm", "autoattack", "autoattack-fast", "pgd-20/40/100", "pgd-100", "training")
LEGEND = (
    "seconds: median; ratio: of each round to the first program of the contest, median, its quartiles, and its range; "
    "forwards, backwards: per image; robust_acc: of this harness by any iterate, of a library by the proposal that it "
    "returns; training: an epoch of Madry's adversarial training, 10 steps, on the images."
)

SPREAD = ("ratio_low", "ratio_q1", "ratio_q3", "ratio_high")
COST = ("seconds", "ratio", *SPREAD, "images_per_second", "forwards", "backwards")
COLUMNS = ("contest", "program", "note", *COST, "robust_acc")


@dataclass(frozen=True)
class Achieved:
    """What an attack achieved on n images: robust ones (None: nothing was judged), and passes."""

    robust: int | None
    forwards: float
    backwards: float


@dataclass(frozen=True)
class Entrant:
    """A program of a contest; `run` is None where it cannot take part, for the reason given."""

    program: str
    run: Callable[[], Achieved] | None
    reason: str = ""


@dataclass(frozen=True)
class Arena:
    """What all programs are measured on.

    Args:
        case: any white-box case of the model and images; its attack does not matter.
        model: in eval mode, frozen, on the device.
        split: the images.
    """

    case: EvalCase
    model: nn.Module
    split: Split
    hardware: Hardware


def measure(arena: Arena, contests: Sequence[str], *, rounds: int, quiet: bool) -> pd.DataFrame:
    """A row for each program of each contest; in every round each program runs once."""
    rows = []
    for contest in tqdm(contests, unit="contest", disable=quiet):
        entrants = _entrants(arena, contest)
        racing = [entrant for entrant in entrants if entrant.run is not None]
        seconds: dict[str, list[float]] = {entrant.program: [] for entrant in racing}
        outcomes: dict[str, Achieved] = {}
        for number in range(rounds if racing else 0):
            first_in_line = number % len(racing)
            for entrant in (*racing[first_in_line:], *racing[:first_in_line]):
                seconds[entrant.program].append(_timed(entrant, outcomes, arena.hardware.device))
        first = seconds[racing[0].program] if racing else []
        for entrant in entrants:
            row: dict[str, object] = {"contest": contest, "program": entrant.program, "note": entrant.reason}
            if entrant.run is not None:
                taken, outcome, n = seconds[entrant.program], outcomes[entrant.program], len(arena.split)
                ratios = [mine / other for mine, other in zip(taken, first, strict=True)]
                row |= {
                    "seconds": statistics.median(taken),
                    "ratio": statistics.median(ratios),
                    **dict(zip(SPREAD, np.percentile(ratios, (0, 25, 75, 100)).tolist(), strict=True)),
                    "images_per_second": n / statistics.median(taken),
                    "forwards": outcome.forwards / n,
                    "backwards": outcome.backwards / n,
                    "robust_acc": None if outcome.robust is None else 100 * outcome.robust / n,
                }
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def write_speed(table: pd.DataFrame, header: str, stem: Path) -> str:
    """Write STEM.csv and STEM.md. Returns: the text to print."""
    write_csv(file_of(stem, ".csv"), table.round(4))
    shown = table.assign(
        ratio=[
            "" if pd.isna(ratio) else f"{ratio:.2f} [{q1:.2f}, {q3:.2f}] ({low:.2f} to {high:.2f})"
            for ratio, low, q1, q3, high in zip(table["ratio"], *(table[name] for name in SPREAD), strict=True)
        ]
    ).drop(columns=list(SPREAD))
    shown = shown.astype(object).where(shown.notna(), None)
    columns = [c for c in shown.columns if c != "note"] + ["note"]
    text = f"{header}\n\n{shown[columns].to_markdown(index=False, floatfmt='.4g', missingval='')}\n\n{LEGEND}\n"
    atomic_write(file_of(stem, ".md"), text.encode())
    return text


def _timed(entrant: Entrant, outcomes: dict[str, Achieved], device: torch.device) -> float:
    assert entrant.run is not None
    started = time.perf_counter()
    try:
        outcomes[entrant.program] = entrant.run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{entrant.program}: out of memory; give a smaller --batch-size or fewer --examples") from None
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _entrants(arena: Arena, contest: str) -> list[Entrant]:
    """The programs of a contest; the first is this harness."""
    if contest == "pgd-20/40/100":
        specs = [ATTACKS[name] for name in ("pgd-20", "pgd-40", "pgd-100")]
        return [
            Entrant(f"{HARNESS}: pgd-100 alone", lambda: _ours(arena, specs[-1:])),
            Entrant(f"{HARNESS}: all three", lambda: _ours(arena, specs)),
        ]
    if contest == "training":
        return _training(arena)
    spec = ATTACKS[contest]
    if contest == "pgd-100":
        return [
            Entrant(HARNESS, lambda: _ours(arena, [spec])),
            Entrant("the model's passes", lambda: _floor(arena, spec)),
        ]
    own = Entrant(HARNESS, lambda: _ours(arena, [replace(spec, reads_last=False)]))
    if contest.startswith("autoattack"):
        reference = ATTACKS["autoattack-reference"]
        if arena.split.classes < FEWEST_CLASSES:
            return [own, Entrant("pyautoattack", None, f"needs at least {FEWEST_CLASSES} classes")]
        return [own, Entrant("pyautoattack", lambda: _ours(arena, [reference]))]
    both = Entrant(f"{HARNESS}, last iterate too", lambda: _ours(arena, [spec]))
    return [own, both, *(_peer(arena, peer) for peer in PEERS[contest])]


def _training(arena: Arena) -> list[Entrant]:
    """An epoch on the images; every backward pass follows a forward pass of its own."""

    def entrant(program: str, epoch: Epoch) -> Entrant:
        def run() -> Achieved:
            passes = epoch(arena.model, arena.split, arena.case.threat, arena.hardware)
            return Achieved(None, passes, passes)

        return Entrant(program, run)

    own, usual = entrant(HARNESS, our_epoch), "the usual loop"
    if lacking := _untrainable(arena.model):
        return [Entrant(program, None, lacking) for program in (HARNESS, usual)]
    if arena.case.threat.norm != "Linf":
        return [own, Entrant(usual, None, f"is written for Linf, not for {arena.case.threat.norm}")]
    return [own, entrant(usual, usual_epoch)]


def _untrainable(model: nn.Module) -> str:
    """Why no copy of the model can be trained; empty where one can."""
    try:
        parameters = list(copy.deepcopy(model).parameters())
    except Exception as error:  # the user's own module may hold what cannot be copied
        return f"the model cannot be copied: {error}"
    return "" if parameters else "the model has no parameters to train"


def _ours(arena: Arena, specs: Sequence[AttackSpec]) -> Achieved:
    """All that a sweep does for a case, task by task, clean predictions included; the last of them is reported."""
    model, hardware = arena.model, arena.hardware
    searched = search_copy(arena.case.model, model, arena.split, hardware)
    cases = [replace(arena.case, attack=spec) for spec in specs]
    robust, forwards, backwards = 0, float(len(arena.split)), 0.0
    at_once = task_size(hardware.batch_size, draws_by_batch=cases[0].draws_by_batch)
    for rows in np.split(np.arange(len(arena.split)), range(at_once, len(arena.split), at_once)):
        images = take(arena.split, rows)
        prediction = predict(model, images.x.to(hardware.device), batch_size=hardware.batch_size)
        verdicts = evaluate_chunk(cases, model, model, searched, images, prediction, hardware)[-1]
        robust += int(verdicts.robust_any.sum())
        forwards += float(np.sum(verdicts.forwards))
        backwards += float(np.sum(verdicts.backwards))
    return Achieved(robust, forwards, backwards)


def _peer(arena: Arena, peer: Peer) -> Entrant:
    """A library as its documentation calls it: on the model as it was loaded, its parameters asking for gradients."""
    if arena.case.threat.norm not in peer.norms:
        return Entrant(peer.library, None, f"has no attack for {arena.case.threat.norm}")
    try:
        counting = CountingClassifier(copy.deepcopy(arena.model).requires_grad_(True))
    except Exception as error:  # the user's own module may hold what cannot be copied
        return Entrant(peer.library, None, f"the model cannot be copied for it: {error}")
    try:
        attack = peer.make(counting, arena.case.threat)
    except ImportError:
        return Entrant(peer.library, None, f"not installed: pip install {peer.library}")
    x, y = (tensor.to(arena.hardware.device) for tensor in (arena.split.x, arena.split.y))

    def run() -> Achieved:
        counting.forwards = counting.backwards = 0
        size, threat = arena.hardware.batch_size, arena.case.threat
        clean = predict(arena.model, x, batch_size=size) == y
        parts = zip(x.split(size), y.split(size), strict=True)
        x_adv = torch.cat([attack(counting, *part).detach() for part in parts])
        robust = clean & judge(arena.model, x, y, threat.project(x_adv, x), threat, batch_size=size)
        return Achieved(int(robust.sum()), counting.forwards + 2 * len(x), counting.backwards)

    return Entrant(peer.library, run)


def _floor(arena: Arena, spec: AttackSpec) -> Achieved:
    """As many forward and backward passes as our attack makes, on full batches, and nothing else."""
    hardware = arena.hardware
    x, y = (tensor.to(hardware.device) for tensor in (arena.split.x, arena.split.y))
    correct = predict(arena.model, x, batch_size=hardware.batch_size) == y
    oracle = Oracle(
        search_copy(arena.case.model, arena.model, arena.split, hardware),
        arena.case.threat,
        precision=hardware.precision,
    )
    for part in correct.nonzero().squeeze(1).split(hardware.batch_size):
        for _ in range(spec.steps):
            oracle.loss_and_gradient(x[part], y[part], "cross-entropy")
    return Achieved(None, oracle.forwards + len(x), oracle.backwards)
