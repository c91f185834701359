"""What running the benchmark does: names to suite, models, attacks and hardware, and on to the sweep and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attacks.errors import InputError
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.outlook import outlook
from benchmark.cli.resolve import (
    choose_adaptive,
    choose_attacks,
    choose_suite,
    choose_transfer,
    with_examples,
    with_loss,
)
from benchmark.cli.resolve_hardware import bring_images, choose_hardware, choose_images, tuned
from benchmark.cli.resolve_models import choose_models, choose_sources, choose_surrogates, to_stderr, without_twins
from benchmark.report.own_images import write_own_images
from benchmark.report.publish import print_tables, refuse_to_replace
from benchmark.report.short import terminal_width, wrapped
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase
from benchmark.suites.grid import cases
from benchmark.suites.models import models_for
from benchmark.suites.suite import TRANSFERRED, Suite
from benchmark.sweep.run import run_cases
from model_zoo.files.locks import claim, in_use


def run(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    attacks: str,
    transfer: str | None,
    sources: str | None,
    examples: Mapping[str, int | None] | None,
    own: OwnModel,
    own_data: OwnData,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
    judge_draws: int,
    eot: int | None,
    keep_images: bool,
    adaptive: str | None,
    loss: str | None,
) -> None:
    """Run the benchmark, write the tables and show the leaderboard in short."""
    brought = bring_images(own_data, shared, dataset or suite, own)
    about = {"brought": None if brought is None else brought.name}
    chosen = with_examples(choose_suite(suite, dataset, norm, epsilon, None, **about), examples or {})
    attack_specs = with_loss(choose_attacks(chosen, attacks), loss)
    found = choose_models(chosen, models, own, shared, brought)
    specs = without_twins(found)
    transferred = choose_transfer(chosen, transfer, attack_specs, has_sources=sources is not None)
    _refuse_what_nothing_takes(examples or {}, sources, attack_specs, transferred)
    hardware = choose_hardware(shared)
    split = choose_images(chosen, shared, brought, skip_broken=own_data.skip_broken)
    hardware = replace(tuned(hardware, chosen, split, shared), keeps_images=keep_images)
    crafted_on = choose_sources(chosen, specs, sources, shared, brought, runs_all=models in (None, "all"))
    surrogates = choose_surrogates(chosen, specs, adaptive, shared, brought)
    is_users = adaptive not in (None, "none")
    on_surrogates = choose_adaptive(chosen, attacks, attack_specs, is_users=is_users)
    about_cases: dict[str, Any] = {
        "sources": crafted_on,
        "adaptive": with_loss(on_surrogates, loss),
        "surrogates": surrogates,
        "judge_draws": judge_draws,
        "eot": eot,
    }
    grid = cases(chosen, specs, attack_specs, transferred, split, seed=shared.seed, **about_cases)
    if sources is not None and not any(case.is_transfer for case in grid):
        raise InputError(f"--sources {sources}: expected a model beside the one that is attacked, got that one alone")
    store = Store(shared.results_dir / "runs")
    refuse_to_replace(store, chosen.name, shared.results_dir, images=split.digest, norm=chosen.threat.norm)

    def begin() -> None:
        if not shared.quiet:
            to_stderr(wrapped(outlook(grid, store, hardware), terminal_width()))

    with in_use(store.root):
        run_cases(
            grid,
            _ranks(chosen, grid, shared),
            split,
            store,
            hardware,
            reading=chosen.reading,
            checkpoint_dir=shared.checkpoint_dir,
            begin=begin,
            quiet=shared.quiet,
        )
        with claim(store.root, f"tables {chosen.name}", wait=True):
            write_own_images(shared.results_dir / chosen.name, brought, split)
            print_tables(store, chosen.name, shared.results_dir)


def _refuse_what_nothing_takes(
    examples: Mapping[str, int | None],
    sources: str | None,
    attacks: Sequence[AttackSpec],
    transferred: Sequence[AttackSpec],
) -> None:
    """Raise InputError for options about attacks that do not run."""
    running = [*(spec.name for spec in (*attacks, *transferred)), *([TRANSFERRED] if transferred else [])]
    idle = [name for name in examples if name and name not in running]
    if idle:
        raise InputError(f"--examples {idle[0]}={examples[idle[0]]}: {idle[0]} does not run; leave it out, or run it")
    if sources is not None and not transferred:
        raise InputError("--sources is for transfer attacks, and none runs; name some by --transfer, or leave it out")


def _ranks(suite: Suite, grid: Sequence[EvalCase], shared: Shared) -> list[tuple[int, ...]]:
    """Each case's place in the tables: by registry, not by the order on the command line."""
    attacks = [*(attack.name for attack in suite.attacks), *ATTACKS]
    attacks += dict.fromkeys(case.attack.name for case in grid if case.attack.name not in attacks)
    models = list(models_for(suite.name, shared.checkpoint_dir))

    def place(name: str) -> int:
        return models.index(name) if name in models else len(models)

    return [
        (
            place(case.model.name),
            int(case.is_transfer),
            attacks.index(case.attack.name) + case.is_adaptive * len(attacks),
            0 if case.is_adaptive else place(case.source.name),
        )
        for case in grid
    ]
