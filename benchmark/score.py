"""Verdicts to scores: one row per model and attack. Nothing here needs a model."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmark.case import EvalCase, case_key
from benchmark.store import Store
from benchmark.verdicts import Bools, Verdicts

Entry = Mapping[str, Any]
"""One shown case: its key, and the names and settings that its row shows."""


class Readable(Protocol):
    """What scores are read from: a verdict store, or packed verdicts."""

    def read_suite(self, suite: str) -> dict[str, Any] | None: ...
    def read_case(self, key: str) -> dict[str, Any] | None: ...
    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None: ...


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
    "flags",
    "seed",
    "version",
)


def entry(case: EvalCase, rank: Sequence[int]) -> dict[str, Any]:
    """What a table says of a case beside its numbers.

    Args:
        rank: its place in the tables, whatever the order in which the user named models and attacks.
    """
    model, attack, source = case.cell
    return {
        "key": case_key(case),
        "rank": list(rank),
        "suite": case.suite,
        "dataset": case.dataset,
        "model": model,
        "defense": case.model.defense,
        "architecture": case.model.network,
        "checkpoint_sha256": case.model.sha256,
        "networks": _networks(case),
        "norm": case.threat.norm,
        "epsilon": case.threat.epsilon,
        "attack": attack,
        "source_model": source,
        "n": case.n,
        "images": case.images,
        "seed": case.seed,
        "version": case.attack.version,
        "schedule": case.model.schedule,
        **({"judge_draws": case.judge_draws} if case.judge_draws else {}),
        **({"eot": case.eot} if case.eot > 1 else {}),
    }


@functools.lru_cache(maxsize=100_000)  # scipy computes the test's p along with it, which takes a millisecond
def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a share, in percent."""
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of the exact McNemar test: who breaks an image that one alone breaks is a fair coin."""
    disagreements = only_first + only_second
    return float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


def percent(flags: Bools) -> float:
    """The share of True, in percent."""
    return 100 * float(np.mean(flags))


def score(entry: Entry, verdicts: Verdicts, flags: Sequence[str]) -> dict[str, Any]:
    """A row of scores.csv: accuracies in percent, `robust_acc` over all images, `asr` over those correct when clean."""
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
        "flags": " ".join(flags),
    }
    row = {**entry, **numbers}
    return {column: row[column] for column in COLUMNS}


@dataclass(frozen=True)
class Judged:
    """What the tables read of one case, one row an image.

    Args:
        index: (N,) int64, ascending, the image's index in its dataset; label: (N,) int64.
        correct: (N,) bool, when clean.
        robust: (N,) bool, by the suite's reading.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    correct: Bools
    robust: Bools

    def on(self, images: NDArray[np.int64]) -> Bools:
        """`robust` of some of the images, by their index."""
        robust: Bools = self.robust[np.searchsorted(self.index, images)]
        return robust


@dataclass(frozen=True)
class SuiteScores:
    """Everything the tables of a suite are made of.

    Args:
        suite: its name.
        reading: the iterate that its tables show, "any" or "last".
        scores: a row of `COLUMNS` for each complete case, in display order.
        timing: the same rows, what differs from run to run.
        worst: for each model (N,) bool, robust under every stored case: a fold, not another run.
        shared: for each model the indices of these N images, which all its cases have seen.
        entries: what each row was made of; judged: the verdicts of each row.
        incomplete: cases left out, since a chunk of theirs is missing or damaged.
    """

    suite: str
    reading: str
    scores: pd.DataFrame
    timing: pd.DataFrame
    worst: Mapping[str, Bools]
    shared: Mapping[str, NDArray[np.int64]]
    entries: Sequence[Entry]
    judged: Sequence[Judged]
    incomplete: Sequence[str]


def shown_entries(store: Readable, suite: str) -> dict[str, Entry]:
    """The cases that the tables of a suite show, by cell and in display order."""
    shown = store.read_suite(suite) or {}
    entries = shown.get("selections", {}).get(shown.get("shown"), {}).get("entries", {})
    return dict(sorted(entries.items(), key=lambda pair: pair[1]["rank"]))


def read_suite(store: Readable, suite: str) -> SuiteScores:
    """The scores of all complete cases that a suite shows, from disk alone."""
    shown = store.read_suite(suite) or {}
    selection = shown.get("selections", {}).get(shown.get("shown"), {"reading": "any", "entries": {}})
    rows: list[dict[str, Any]] = []
    timing: list[dict[str, Any]] = []
    entries: list[Entry] = []
    judged: list[Judged] = []
    incomplete: list[str] = []
    for item in sorted(selection["entries"].values(), key=lambda item: item["rank"]):
        stored, record = store.read(item["key"], item["n"]), store.read_case(item["key"])
        if stored is None or record is None:
            incomplete.append("/".join(name for name in (item["model"], item["attack"], item["source_model"]) if name))
            continue
        verdicts, chunks = stored
        entries.append(item)
        judged.append(Judged(verdicts.index, verdicts.label, verdicts.correct, verdicts.robust(selection["reading"])))
        rows.append(score(item, verdicts, record["flags"]))
        timing.append({**{name: item[name] for name in ("model", "attack", "source_model")}, **total_timing(chunks)})
    scores = pd.DataFrame(rows, columns=list(COLUMNS))
    shared, worst = _worst_case(entries, judged)
    return SuiteScores(
        suite, selection["reading"], scores, pd.DataFrame(timing), worst, shared, entries, judged, incomplete
    )


def _worst_case(
    entries: Sequence[Entry], judged: Sequence[Judged]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Bools]]:
    """For each model the images that all its cases have seen, and whether each is robust under all of them."""
    cases: dict[str, list[Judged]] = {}
    for item, verdicts in zip(entries, judged, strict=True):
        cases.setdefault(item["model"], []).append(verdicts)
    shared = {model: common_images(found) for model, found in cases.items()}
    return shared, {model: np.all([one.on(shared[model]) for one in found], axis=0) for model, found in cases.items()}


def common_images(judged: Sequence[Judged]) -> NDArray[np.int64]:
    """The indices, ascending, of the images that all of some cases have seen."""
    common = judged[0].index
    for other in judged[1:]:
        if not np.array_equal(common, other.index):
            common = np.intersect1d(common, other.index, assume_unique=True)
    return common


def show(
    store: Store,
    suite: str,
    reading: str,
    cases: Sequence[EvalCase],
    ranks: Sequence[Sequence[int]],
    *,
    images: str | None = None,
) -> None:
    """Add cases to those that a suite's tables show.

    Tables never mix images, threat models or seeds: each choice of these is a selection, and the newest is shown.
    A cell that is computed again with other settings replaces the old one; another network under a known name replaces
    all cells of the old one, so that no worst case mixes the two.

    Args:
        images: digest of the images that the cases attack, all or a part of them; None for those of the first case.
    """
    first = cases[0]
    chosen = f"{(images or first.images)[:16]} {first.threat.norm} {first.threat.epsilon} seed {first.seed}"
    record = store.read_suite(suite) or {"selections": {}}
    selection = record["selections"].setdefault(chosen, {"entries": {}})
    selection["reading"] = reading
    networks = {name: network for case in cases for name, network in _networks(case).items()}
    selection["entries"] = {
        cell: item
        for cell, item in selection["entries"].items()
        if all(networks.get(name, network) == network for name, network in item.get("networks", {}).items())
    }
    for case, rank in zip(cases, ranks, strict=True):
        selection["entries"]["/".join(case.cell)] = entry(case, rank)
    store.write_suite(suite, {**record, "shown": chosen})


def _networks(case: EvalCase) -> dict[str, dict[str, str]]:
    """What the names of a case stand for."""
    return {spec.name: spec.identity for spec in (case.model, case.source)}


def total_timing(timing: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds add up over chunks; what else differed between them is listed."""
    listed = {
        name: " | ".join(sorted({str(chunk.get(name, "")) for chunk in timing}))
        for name in ("device", "precision", "batch_size", "threads", "workers", "versions")
    }
    return {"seconds": round(sum(chunk["seconds"] for chunk in timing), 3), **listed}
