"""Other selections of a suite: the same images at another epsilon or under another seed, and what they add up to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from benchmark.report.score import SuiteScores
from benchmark.report.trainings import trained_as
from benchmark.stats.shares import percent, wilson
from benchmark.store.packed import Packed
from benchmark.store.shown import Selection, Shown, ShownCase
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts


@dataclass(frozen=True)
class Selected:
    """A store of which another selection is shown."""

    store: Store
    selection: Selection

    def shown(self, suite: str) -> Shown:
        """The cases of that selection."""
        record = self.store.read_suite(suite)
        return Shown() if record is None else record.selections[self.selection]

    def read_case(self, key: str) -> dict[str, Any] | None:
        """As the store."""
        return self.store.read_case(key)

    def read(self, key: str, n: int) -> tuple[Verdicts, list[dict[str, Any]]] | None:
        """As the store."""
        return self.store.read(key, n)


def other_selections(store: Store, suite: str) -> dict[str, Selected]:
    """Those of the images and the norm that the tables show, by what they differ in."""
    record = store.read_suite(suite)
    if record is None:
        return {}
    shown = record.shown
    return {
        other.difference: Selected(store, other)
        for other in sorted(record.selections, key=lambda other: other.text)
        if (other.images, other.norm) == (shown.images, shown.norm) and other != shown
    }


def selection_name(packed: Packed) -> str:
    """What `other_selections` calls the selection that was packed, of which there is at least one case."""
    return packed.selected.difference


def rows_beside(other: Packed, shown: Packed) -> Packed:
    """Of a selection that differs from the one shown in epsilon or seed alone, the rows of networks that are shown.

    Networks that are not shown stand for themselves; a selection of other images or another norm has no rows here.
    """
    mine, theirs = shown.selected, other.selected
    is_beside = (mine.images, mine.norm) == (theirs.images, theirs.norm) and mine != theirs
    networks = {case.entry.model: case.entry.checkpoint_sha256 for case in shown.cases.values()}
    rows = {
        key: case
        for key, case in other.cases.items()
        if is_beside and networks.get(case.entry.model, case.entry.checkpoint_sha256) == case.entry.checkpoint_sha256
    }
    return replace(other, cases=rows, selection=theirs)


def epsilon_table(suite: SuiteScores, others: Sequence[SuiteScores]) -> pd.DataFrame:
    """Robust accuracy against epsilon, by the attack that most epsilons have; empty where there are not two.

    Returns: columns model, attack, epsilon, n, robust_acc, ci_low, ci_high; epsilon 0 is the clean accuracy.
    """
    if not others:
        return pd.DataFrame()
    cells: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for scores in (suite, *others):
        for entry, judged in zip(scores.entries, scores.judged, strict=True):
            if entry.source_model or entry.seed != suite.entries[0].seed:
                continue
            at = cells.setdefault(entry.attack, {})
            at.setdefault(entry.epsilon, []).append(_line(entry, entry.epsilon, judged.robust))
            at.setdefault(0.0, []).append(_line(entry, 0.0, judged.correct))
    chosen = max(cells.values(), key=len, default={})  # of equally many, the first attack of the suite
    if len(chosen) < 3:
        return pd.DataFrame()
    lines = [line for epsilon in sorted(chosen) for line in chosen[epsilon]]
    return pd.DataFrame(lines).drop_duplicates(["model", "epsilon"]).sort_values(["model", "epsilon"], kind="stable")


def _line(entry: ShownCase, epsilon: float, held: Any) -> dict[str, Any]:
    low, high = wilson(int(held.sum()), len(held))
    names = {"model": entry.model, "attack": entry.attack, "epsilon": epsilon, "n": len(held)}
    return {**names, "robust_acc": percent(held), "ci_low": low, "ci_high": high}


def seed_table(suite: SuiteScores, others: Sequence[SuiteScores]) -> pd.DataFrame:
    """Mean and standard deviation over seeds, of the attack and of the training; empty where there is only one.

    Returns: columns model, attack, source_model, seeds, mean, std, lowest, highest; the sample's standard deviation.
    """
    cell = ["model", "attack", "source_model"]
    values = pd.DataFrame(_over_seeds(suite, others), columns=[*cell, "accuracy"])
    table = values.groupby(cell, sort=False).agg(
        seeds=("accuracy", "size"),
        mean=("accuracy", "mean"),
        std=("accuracy", "std"),
        lowest=("accuracy", "min"),
        highest=("accuracy", "max"),
    )
    return table[table["seeds"] > 1].reset_index()


def _over_seeds(suite: SuiteScores, others: Sequence[SuiteScores]) -> Iterator[tuple[str, str, str, float]]:
    """Every accuracy at the epsilon of the tables, by the model without its seed; the clean one once a network."""
    networks: set[str] = set()
    for scores in (suite, *others):
        for entry, judged in zip(scores.entries, scores.judged, strict=True):
            if entry.epsilon != suite.entries[0].epsilon:
                continue
            model = trained_as(entry.model)
            if entry.model not in networks:
                networks.add(entry.model)
                yield model, "clean", "", percent(judged.correct)
            yield model, entry.attack, trained_as(entry.source_model), percent(judged.robust)
