"""What the commands do: names to suite, models, attacks and hardware, and on to sweep, comparisons and tables."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from attacks.errors import InputError
from attacks.names import lookup
from attacks.registry import ATTACKS, attack_spec
from benchmark.case import EvalCase
from benchmark.checks import check_images, check_model
from benchmark.choices import (
    all_names_in,
    check_name,
    choose_attacks,
    choose_hardware,
    choose_images,
    choose_models,
    choose_sources,
    choose_suite,
    choose_transfer,
    names_in,
    refuse_workers,
    tuned,
    with_examples,
)
from benchmark.cli import Shared
from benchmark.compare import Pair, compare, left_out, white_box, write_comparison
from benchmark.data import digest
from benchmark.hardware import describe
from benchmark.leaderboard import leaderboard
from benchmark.locks import claim, in_use
from benchmark.packed import Packed, gather, read_packed, write_packed
from benchmark.papers import models_for
from benchmark.score import read_suite, show, shown_entries
from benchmark.selections import epsilon_table, other_selections
from benchmark.speed import CONTESTS, Arena, measure, write_speed
from benchmark.store import Store
from benchmark.suite import Suite
from benchmark.suites import SUITES, cases
from benchmark.sweep import load_on, prepare, sweep
from benchmark.tables import write_tables
from benchmark.triples import example_images, write_examples

VERDICTS = "verdicts"
"""The folder of the packed verdicts, beside those of the tables."""
OTHER = "@"
"""Between the name of a suite and what another selection of it differs in."""


def run(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    attacks: str,
    transfer: str | None,
    sources: str | None,
    examples: Mapping[str, int | None] | None,
    model: str | None,
    checkpoint: Path | None,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
    keep_images: bool,
) -> None:
    """Run the benchmark, write the tables and print them."""
    chosen = with_examples(choose_suite(suite, dataset, norm, epsilon, None), examples or {})
    attack_specs = choose_attacks(chosen, attacks)
    specs = choose_models(chosen, models, model, checkpoint, shared)
    transferred = choose_transfer(chosen, transfer, attack_specs)
    hardware = choose_hardware(shared)
    split = choose_images(chosen, shared)
    hardware = replace(tuned(hardware, split, shared), keeps_images=keep_images)
    crafted_on = choose_sources(chosen, specs, sources, runs_all=models in (None, "all"))
    grid = cases(chosen, specs, attack_specs, transferred, split, seed=shared.seed, sources=crafted_on)
    store = Store(shared.results_dir / "runs")
    with in_use(store.root):
        work = prepare(grid, split, store, hardware, checkpoint_dir=shared.checkpoint_dir)
        with claim(store.root, f"suite {chosen.name}", wait=True):
            show(
                store,
                chosen.name,
                chosen.reading,
                grid,
                _ranks(chosen, grid, shared),
                images=digest(split),
            )
        sweep(work, store, hardware, quiet=shared.quiet)
        with claim(store.root, f"tables {chosen.name}", wait=True):
            _print_tables(store, chosen.name, shared)


def rebuild_tables(shared: Shared) -> None:
    """Write tables and pictures of every suite, from the store where it has the suite, else from packed verdicts."""
    store, folder = Store(shared.results_dir / "runs"), shared.results_dir / VERDICTS
    store.check()
    there = store.suites()
    packed = sorted({path.stem.partition(OTHER)[0] for path in folder.glob("*.json")} - set(there))
    if not (there or packed):
        raise InputError(
            f"expected verdicts in {store.root}, found none, nor packed ones in {folder}; "
            "run a benchmark first, or name --results-dir"
        )
    for suite in there:
        _print_tables(store, suite, shared, with_pictures=True)
    for suite in packed:
        others = [read_packed(path) for path in sorted(folder.glob(f"{suite}{OTHER}*.json"))]
        _write_all(read_packed(folder / f"{suite}.json"), others, shared, with_pictures=True)
        print(f"Tables: {shared.results_dir / suite}, from {folder / suite}.json")


def _write_all(
    packed: Packed,
    others: Sequence[Packed],
    shared: Shared,
    *,
    with_pictures: bool,
    examples: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write and print everything that can be made of a suite's verdicts."""
    folder, suite = shared.results_dir / packed.suite, read_suite(packed, packed.suite)
    beside = [read_suite(other, other.suite) for other in others]
    print(write_tables(suite, folder, others=beside, examples=examples))
    write_examples(examples, folder / "examples")
    if with_pictures and suite.entries:
        from benchmark.pictures import write_pictures  # matplotlib takes longer to load than most commands to run

        write_pictures(suite, leaderboard(suite), epsilon_table(suite, beside), folder / "pictures")


def _print_tables(store: Store, suite: str, shared: Shared, *, with_pictures: bool = False) -> None:
    """Write and print the tables of a suite, pack its verdicts, and say which cases are not in them."""
    before = _rows(shared.results_dir / suite / "scores.csv")
    packed = gather(store, suite)
    others = {name: gather(other, suite) for name, other in other_selections(store, suite).items()}
    others = {name: other for name, other in others.items() if other.cases}
    examples = example_images(store, suite)
    _write_all(packed, list(others.values()), shared, with_pictures=with_pictures, examples=examples)
    if 0 < len(packed.cases) < before:
        print(
            f"note: the tables of {suite} had {before} rows, now {len(packed.cases)}: the others are "
            "not in this store, or not of these images; use --results-dir to keep tables apart",
            file=sys.stderr,
        )
    print(f"Tables: {shared.results_dir / suite}")
    if packed.cases:
        folder = shared.results_dir / VERDICTS
        for stale in folder.glob(f"{suite}{OTHER}*"):
            stale.unlink()
        for name, one in ((suite, packed), *((f"{suite}{OTHER}{name}", other) for name, other in others.items())):
            write_packed(one, folder / name)
    if incomplete := [cell for cell, item in shown_entries(store, suite).items() if item["key"] not in packed.cases]:
        print(
            f"left out of {suite}: {len(incomplete)} cases without all their verdicts "
            f"({', '.join(incomplete[:5])}{', ...' if len(incomplete) > 5 else ''}); run them again",
            file=sys.stderr,
        )


def _rows(scores: Path) -> int:
    """How many rows a table has; 0 where there is none."""
    return len(pd.read_csv(scores)) if scores.is_file() else 0


def compare_stored(
    shared: Shared, *, suites: str, attacks: str, against: str | None, against_dir: Path | None, name: str
) -> None:
    """Compare what is in the store, write the tables and print them."""
    check_name(name)
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
    print(write_comparison(*tables, shared.results_dir / name))
    if lacking := left_out(ours, theirs, pairs):
        print(f"left out: {', '.join(lacking)}; run what they lack", file=sys.stderr)


def speed(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    contests: str,
    rounds: int,
    examples: int,
    model: str | None,
    checkpoint: Path | None,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
    name: str,
) -> None:
    """Measure, write the table and print it."""
    refuse_workers(shared, "speed")
    check_name(name)
    chosen = choose_suite(suite, dataset, norm, epsilon, examples)
    entered = CONTESTS if contests == "all" else names_in(contests)
    for contest in entered:
        lookup(contest, dict.fromkeys(CONTESTS), "contest")
    specs = choose_models(chosen, models, model, checkpoint, shared)
    if models and len(specs) > 1:
        raise InputError(f"speed measures one model, got {', '.join(spec.name for spec in specs)}; name one of them")
    spec = next((spec for spec in specs if spec.defense != "natural"), specs[0])
    split = choose_images(chosen, shared)
    hardware = tuned(choose_hardware(shared), split, shared)
    case = cases(chosen, [spec], [ATTACKS["pgd-20"]], [], split, seed=shared.seed)[0]
    check_images(split)
    network = load_on(hardware, spec, split, shared.checkpoint_dir)
    check_model(spec.name, network, split, hardware)
    table = measure(Arena(case, network, split, hardware), entered, rounds=rounds, quiet=shared.quiet)
    header = (
        f"{spec.name} ({spec.architecture}) on {len(split)} images of {split.dataset}, {chosen.threat.norm} "
        f"{chosen.threat.epsilon:.5g}; {rounds} rounds; {describe(hardware)}"
    )
    print(write_speed(table, header, shared.results_dir / name))


def _ranks(suite: Suite, grid: Sequence[EvalCase], shared: Shared) -> list[tuple[int, ...]]:
    """Each case's place in the tables: by registry, not by the order on the command line."""
    attacks = [*(attack.name for attack in suite.attacks), *ATTACKS]
    models = list(models_for(suite.name, shared.checkpoint_dir))

    def place(name: str) -> int:
        return models.index(name) if name in models else len(models)

    return [
        (place(case.model.name), int(case.is_transfer), attacks.index(case.attack.name), place(case.source.name))
        for case in grid
    ]
