"""What the commands do: names to suite, models, attacks and hardware, and on to sweep, comparisons and tables."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    without_twins,
)
from benchmark.cli import Shared
from benchmark.compare import Pair, compare, left_out, white_box, write_comparison
from benchmark.data import digest
from benchmark.hardware import describe
from benchmark.papers import models_for
from benchmark.score import show
from benchmark.speed import CONTESTS, Arena, measure, write_speed
from benchmark.store import Store
from benchmark.suite import Suite
from benchmark.suites import SUITES, cases
from benchmark.sweep import sweep
from benchmark.table_command import print_tables
from benchmark.work import load_on, prepare
from model_zoo.locks import claim, in_use


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
    output: str | None,
    trust_code: bool,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
    judge_draws: int,
    eot: int | None,
    keep_images: bool,
) -> None:
    """Run the benchmark, write the tables and print them."""
    chosen = with_examples(choose_suite(suite, dataset, norm, epsilon, None), examples or {})
    attack_specs = choose_attacks(chosen, attacks)
    found = choose_models(chosen, models, model, checkpoint, shared, output=output, trusts_code=trust_code)
    specs = without_twins(found)
    transferred = choose_transfer(chosen, transfer, attack_specs)
    hardware = choose_hardware(shared)
    split = choose_images(chosen, shared)
    hardware = replace(tuned(hardware, chosen, split, shared), keeps_images=keep_images)
    crafted_on = choose_sources(chosen, specs, sources, shared, runs_all=models in (None, "all"))
    draws: dict[str, Any] = {"judge_draws": judge_draws, "eot": eot}
    grid = cases(chosen, specs, attack_specs, transferred, split, seed=shared.seed, sources=crafted_on, **draws)
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
            print_tables(store, chosen.name, shared)


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
    output: str | None,
    trust_code: bool,
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
    specs = choose_models(chosen, models, model, checkpoint, shared, output=output, trusts_code=trust_code)
    if models and len(specs) > 1:
        raise InputError(f"speed measures one model, got {', '.join(spec.name for spec in specs)}; name one of them")
    spec = next((spec for spec in specs if spec.defense != "natural"), specs[0])
    split = choose_images(chosen, shared)
    hardware = tuned(choose_hardware(shared), chosen, split, shared)
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
