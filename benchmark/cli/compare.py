"""What the compare command does: names to pairs of attacks, and on to the comparison."""

import sys
from pathlib import Path

from attacks.errors import InputError
from attacks.names import check_name, lookup
from attacks.registry import attack_spec
from benchmark.cli.options import Shared
from benchmark.cli.resolve import all_names_in, names_in
from benchmark.report.compare import Pair, compare, left_out, white_box, write_comparison
from benchmark.store.store import Store
from benchmark.suites.registry import SUITES
from model_zoo.files.atomic import file_of


def compare_stored(
    shared: Shared, *, suites: str, attacks: str, against: str | None, against_dir: Path | None, name: str
) -> None:
    """Compare what is in the store, write the tables and print them."""
    check_name(name, "--name")
    firsts, seconds = all_names_in(attacks), all_names_in(against or attacks)
    for attack in (*firsts, *seconds):
        attack_spec(attack)
    seconds = seconds * len(firsts) if len(seconds) == 1 else seconds
    if len(firsts) != len(seconds):
        raise InputError(
            f"--against takes one attack, or one for each of --attacks: got {len(seconds)} for {len(firsts)}"
        )
    if against is None and against_dir is None:
        raise InputError("compare needs --against (other attacks), --against-dir (another results folder) or both")
    if against_dir is None and firsts == seconds:
        raise InputError("compare needs two different attacks, or --against-dir: an attack agrees with itself")
    folders = shared.results_dir, against_dir or shared.results_dir
    for folder in folders:
        if not (folder / "runs").is_dir():
            raise InputError(
                f"expected verdicts in {folder / 'runs'}, found no such folder; run a benchmark there first"
            )
    pairs = [Pair(*pair) for pair in zip(firsts, seconds, strict=True)]
    named = [lookup(suite, SUITES, "suite").name for suite in names_in(suites)]
    ours = white_box(Store(folders[0] / "runs"), named)
    theirs = ours if against_dir is None else white_box(Store(against_dir / "runs"), named)
    tables = compare(ours, theirs, named, pairs)
    stem = shared.results_dir / name
    print(write_comparison(*tables, stem))
    print(f"The {len(tables[1])} images that two attacks disagree on: {file_of(stem, '-disagreements.csv')}")
    if lacking := left_out(ours, theirs, pairs):
        print(f"left out: {', '.join(lacking)}; run what they lack", file=sys.stderr)
