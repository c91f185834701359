"""What the union command does: names of suites to their stored scores, and on to the table."""

import sys
from pathlib import Path

from attacks.errors import InputError
from attacks.names import check_name
from benchmark.cli.options import Shared
from benchmark.cli.resolve import names_in
from benchmark.report.publish import VERDICTS
from benchmark.report.score import SuiteScores, score_suite
from benchmark.report.union import left_out, union_table, write_union
from benchmark.store.packed import read_packed
from benchmark.store.store import Store


def union_of(shared: Shared, *, suites: str, name: str) -> None:
    """Fold what is stored of some suites, write the table and print it."""
    check_name(name, "--name")
    found = [_scores(shared.results_dir, suite) for suite in names_in(suites)]
    table = union_table(found)
    print(write_union(table, found, shared.results_dir / name))
    print(f"{shared.results_dir / name}.md, {name}.csv")
    if lacking := left_out(table, found):
        print(f"left out, since not all suites have them: {', '.join(lacking)}", file=sys.stderr)


def _scores(results_dir: Path, suite: str) -> SuiteScores:
    """What a store has of a suite, else what is packed of it. Raises: InputError where there is neither."""
    store, packed = Store(results_dir / "runs"), results_dir / VERDICTS / f"{suite}.json"
    if (results_dir / "runs").is_dir() and store.read_suite(suite) is not None:
        scores = score_suite(store, suite)
    elif packed.is_file():
        scores = score_suite(read_packed(packed), suite)
    else:
        raise InputError(f"expected verdicts of {suite} in {store.root} or {packed}, found none; run the suite first")
    if not scores.entries:
        raise InputError(f"expected a complete case of {suite}, found none; run the suite again to go on")
    return scores
