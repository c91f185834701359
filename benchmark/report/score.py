"""Verdicts to scores: one row per model and attack. Nothing here needs a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.stats.shares import Bools, percent, wilson
from benchmark.store.certificates import Certified
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.selection import SETTING, Readable, total_timing
from benchmark.store.shown import ShownCase
from benchmark.store.verdicts import Verdicts

COLUMNS = (
    "suite",
    "dataset",
    "model",
    "defense",
    "architecture",
    "checkpoint_sha256",
    "norm",
    "epsilon",
    "attack",
    "source_model",
    "n",
    "clean_acc",
    "robust_acc",
    "robust_acc_last",
    "robust_acc_single_draw",
    "ci_low",
    "ci_high",
    "asr",
    "forwards_per_image",
    "backwards_per_image",
    "zero_gradients",
    "flags",
    "seed",
    "judge_draws",
    "eot",
    "version",
)
CELL = "model", "attack", "source_model"
TIMING = (*CELL, "seconds", *SETTING)


def score(
    entry: ShownCase, verdicts: Verdicts, flags: Sequence[str], zero_gradients: float | None = None
) -> dict[str, Any]:
    """A row of scores.csv: accuracies in percent, `robust_acc` over all images, `asr` over those correct when clean.

    Args:
        zero_gradients: percentage of images without gradient, of the first 256 that are correct when clean.
    """
    correct, robust = int(verdicts.correct.sum()), int(verdicts.robust_any.sum())
    low, high = wilson(robust, len(verdicts.index))
    numbers = {
        "clean_acc": percent(verdicts.correct),
        "robust_acc": percent(verdicts.robust_any),
        "robust_acc_last": None if verdicts.robust_last is None else percent(verdicts.robust_last),
        "robust_acc_single_draw": None if verdicts.robust_single is None else percent(verdicts.robust_single),
        "ci_low": low,
        "ci_high": high,
        "asr": 100 * (correct - robust) / correct if correct else None,
        "forwards_per_image": float(np.mean(verdicts.forwards)),
        "backwards_per_image": float(np.mean(verdicts.backwards)),
        "zero_gradients": zero_gradients,
        "flags": " ".join(flags),
    }
    row = {**vars(entry), "judge_draws": max(entry.judge_draws, 1), **numbers}
    return {column: row[column] for column in COLUMNS}


@dataclass(frozen=True)
class Judged:
    """What the tables read of one case, one row an image.

    Args:
        index: (N,) int64, ascending, the image's index in its dataset; label: (N,) int64.
        correct: (N,) bool, when clean.
        robust: (N,) bool, by the suite's reading.
        adversarial_class, queries, bad_queries: (N,) int64, as in `Verdicts`; None where they are not known.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    correct: Bools
    robust: Bools
    adversarial_class: NDArray[np.int64] | None = None
    queries: NDArray[np.int64] | None = None
    bad_queries: NDArray[np.int64] | None = None

    def on(self, images: NDArray[np.int64]) -> Bools:
        """`robust` of some of the images, by their index."""
        robust: Bools = self.robust[np.searchsorted(self.index, images)]
        return robust

    @property
    def clean(self) -> "Judged":
        """The same images under no attack."""
        return Judged(self.index, self.label, self.correct, self.correct)


def judged_from(verdicts: Verdicts, reading: str) -> Judged:
    """A case's verdicts by the reading "any" or "last"."""
    held = verdicts.robust(reading)
    own = verdicts.adversarial_class, verdicts.queries, verdicts.bad_queries
    return Judged(verdicts.index, verdicts.label, verdicts.correct, held, *own)


@dataclass(frozen=True)
class SuiteScores:
    """Everything the tables of a suite are made of.

    Args:
        suite: its name.
        reading: the iterate that its tables show, "any" or "last".
        scores: a row of `COLUMNS` for each complete case, in display order.
        timing: of the rows whose computation a store recorded, what differs from run to run: `TIMING`.
        worst: for each model (N,) bool, robust under every stored case: a fold, not another run.
        shared: for each model the indices of these N images, which all its cases have seen.
        entries: what each row was made of; judged: the verdicts of each row.
        diagnosed: by model, the flags of what a diagnosis found of it.
        certified: what is certified of its models, and perhaps of networks that had their names before.
    """

    suite: str
    reading: str
    scores: pd.DataFrame
    timing: pd.DataFrame
    worst: Mapping[str, Bools]
    shared: Mapping[str, NDArray[np.int64]]
    entries: Sequence[ShownCase]
    judged: Sequence[Judged]
    diagnosed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    certified: Sequence[Certified] = ()

    def worst_case(self, model: str) -> Judged:
        """What the worst case of a model left, on the images that it is over."""
        images, robust = self.shared[model], self.worst[model]
        return Judged(images, images, robust, robust)


def score_suite(
    store: Readable, suite: str, diagnoses: Sequence[Diagnosis] = (), certified: Sequence[Certified] = ()
) -> SuiteScores:
    """The scores of all complete cases that a suite shows, from disk alone.

    Args:
        diagnoses, certified: of its models, and perhaps of networks that had their names before.
    """
    shown = store.shown(suite)
    rows: list[dict[str, Any]] = []
    timing: list[dict[str, Any]] = []
    entries: list[ShownCase] = []
    judged: list[Judged] = []
    for entry in shown.cases:
        stored, record = store.read(entry.key, entry.n), store.read_case(entry.key)
        if stored is None or record is None:
            continue
        verdicts, chunks = stored
        entries.append(entry)
        judged.append(judged_from(verdicts, shown.reading))
        rows.append(score(entry, verdicts, record["flags"], record.get("zero_gradients")))
        if chunks:
            cell = dict(zip(CELL, (entry.model, entry.attack, entry.source_model), strict=True))
            timing.append({**cell, **total_timing(chunks)})
    scores, timed = pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(timing, columns=list(TIMING))
    shared, worst = _worst_case(entries, judged)
    networks = {entry.model: entry.networks.get(entry.model) for entry in entries}
    flags = {one.model: one.flags for one in diagnoses if networks.get(one.model) == one.network}
    return SuiteScores(suite, shown.reading, scores, timed, worst, shared, entries, judged, flags, certified)


def _worst_case(
    entries: Sequence[ShownCase], judged: Sequence[Judged]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Bools]]:
    """For each model the images that all its cases have seen, and whether each is robust under all of them."""
    cases: dict[str, list[Judged]] = {}
    for entry, verdicts in zip(entries, judged, strict=True):
        cases.setdefault(entry.model, []).append(verdicts)
    shared = {model: common_images(found) for model, found in cases.items()}
    return shared, {model: np.all([one.on(shared[model]) for one in found], axis=0) for model, found in cases.items()}


def common_images(judged: Sequence[Judged]) -> NDArray[np.int64]:
    """The indices, ascending, of the images that all of some cases have seen."""
    common = judged[0].index
    for other in judged[1:]:
        if not np.array_equal(common, other.index):
            common = np.intersect1d(common, other.index, assume_unique=True)
    return common
