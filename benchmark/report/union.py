"""The union of threat models: which images of a model withstand all that several suites stored. No attack is run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attacks.errors import InputError
from benchmark.report.score import Judged, SuiteScores
from benchmark.report.tables import write_csv
from benchmark.stats.shares import percent, wilson
from model_zoo.files.atomic import atomic_write, file_of

UNION = "union"
NOTE = (
    "An image counts under a threat model if it is classified correctly under every attack that the suite stored, and "
    "under the union if it does so under all of them; accuracies in percent, on the images that all suites have of a "
    "model. ci_low, ci_high: 95% Wilson interval of the union."
)


def union_table(suites: Sequence[SuiteScores]) -> pd.DataFrame:
    """A row a network that all suites have, most robust under the union first.

    Returns: columns model, defense, clean, a threat model each, union, ci_low, ci_high, n.
    Raises: InputError for suites of different datasets, and for suites without a network and an image in common.
    """
    datasets = {entry.dataset for suite in suites for entry in suite.entries}
    if len(suites) < 2 or len(datasets) != 1:
        raise InputError(
            f"expected two suites or more of one dataset, with verdicts, got {', '.join(one.suite for one in suites)} "
            f"of {', '.join(sorted(datasets)) or 'none'}"
        )
    named = [_name_of(suite, suites) for suite in suites]
    rows = []
    for model in suites[0].worst:
        own = [_same_network(suite, _network(suites[0], model)) for suite in suites]
        found = [(suite, name) for suite, name in zip(suites, own, strict=True) if name is not None]
        if len(found) < len(suites):
            continue
        images = found[0][0].shared[found[0][1]]
        for suite, name in found[1:]:
            images = np.intersect1d(images, suite.shared[name], assume_unique=True)
        if not len(images):
            continue
        _require_same_labels([_clean(suite, name) for suite, name in found], images, model)
        robust = [suite.worst_case(name).on(images) for suite, name in found]
        low, high = wilson(int(np.all(robust, axis=0).sum()), len(images))
        rows.append(
            {
                "model": model,
                "defense": next(entry.defense for entry in suites[0].entries if entry.model == model),
                "clean": percent(_clean(*found[0]).on(images)),
                **{name: percent(one) for name, one in zip(named, robust, strict=True)},
                UNION: percent(np.all(robust, axis=0)),
                "ci_low": low,
                "ci_high": high,
                "n": len(images),
            }
        )
    if not rows:
        raise InputError(
            f"expected a network and images that {', '.join(one.suite for one in suites)} all have, found none; run "
            "each of them on the same models and --examples"
        )
    return pd.DataFrame(rows).sort_values(UNION, ascending=False, kind="stable", ignore_index=True)


def write_union(table: pd.DataFrame, suites: Sequence[SuiteScores], stem: Path) -> str:
    """Write STEM.csv and STEM.md. Returns: the text to print."""
    write_csv(file_of(stem, ".csv"), table.round(4))
    names = ", ".join(suite.suite for suite in suites)
    body = table.to_markdown(index=False, floatfmt=".2f")
    text = f"## Union of threat models: {names}\n\n{suites[0].entries[0].dataset}. {NOTE}\n\n{body}\n"
    atomic_write(file_of(stem, ".md"), text.encode())
    return text


def left_out(table: pd.DataFrame, suites: Sequence[SuiteScores]) -> list[str]:
    """The models of the first suite that another one lacks, or has no image of."""
    return sorted(set(suites[0].worst) - set(table["model"]))


def _name_of(suite: SuiteScores, suites: Sequence[SuiteScores]) -> str:
    """The threat model of a suite, with its name where another one has the same."""

    def threat(one: SuiteScores) -> str:
        return f"{one.entries[0].norm} {one.entries[0].epsilon:.4g}"

    same = [one for one in suites if threat(one) == threat(suite)]
    return threat(suite) if len(same) == 1 else f"{threat(suite)} ({suite.suite})"


def _network(suite: SuiteScores, model: str) -> dict[str, str]:
    return next(dict(entry.networks.get(model, {})) for entry in suite.entries if entry.model == model)


def _same_network(suite: SuiteScores, network: dict[str, str]) -> str | None:
    """What a suite calls a network; None where it has not attacked it."""
    return next((model for model in suite.worst if _network(suite, model) == network), None)


def _clean(suite: SuiteScores, model: str) -> Judged:
    """The verdicts of the case of a model that has most images, under no attack."""
    own = [judged for entry, judged in zip(suite.entries, suite.judged, strict=True) if entry.model == model]
    return max(own, key=lambda judged: len(judged.index)).clean


def _require_same_labels(found: Sequence[Judged], images: np.ndarray, model: str) -> None:
    labels = [judged.label[np.searchsorted(judged.index, images)] for judged in found]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        raise InputError(f"{model}: the suites are of different images; run them on the same data")
