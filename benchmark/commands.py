"""What the commands do: names to suite, models, attacks and hardware, and on to the sweep, the trainer, the tables."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from attacks.errors import InputError
from attacks.names import lookup
from attacks.registry import ATTACKS, attack_spec
from benchmark.case import EvalCase
from benchmark.checks import check_images, check_model
from benchmark.choices import (
    all_names_in,
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
    use_threads,
)
from benchmark.cli import Shared
from benchmark.compare import Pair, compare, left_out, white_box, write_comparison
from benchmark.data import Split, balanced_subset, digest, holdout
from benchmark.datasets import load
from benchmark.first_stage import first_stem, prepare_first_stage
from benchmark.hardware import describe
from benchmark.score import read_suite, show
from benchmark.speed import CONTESTS, Arena, measure, write_speed
from benchmark.store import Store
from benchmark.suites import SUITES, Suite, cases
from benchmark.sweep import VERSIONED, load_on, prepare, sweep
from benchmark.tables import write_tables
from model_zoo.bounds.certified import BOUNDS
from model_zoo.checkpoint import atomic_write
from model_zoo.defenses.registry import DefenseSpec, defense_spec
from model_zoo.progress import forget
from model_zoo.recipes import Recipe, recipe, with_overrides
from model_zoo.registry import ModelSpec, card, load_model, models_of
from model_zoo.training import Training
from model_zoo.training import train as run_training


def run(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    attacks: str,
    transfer: str | None,
    sources: str | None,
    examples: int | None,
    model: str | None,
    checkpoint: Path | None,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
) -> None:
    """Run the benchmark, write the tables and print them."""
    chosen = choose_suite(suite, dataset, norm, epsilon, examples)
    attack_specs = choose_attacks(chosen, attacks)
    specs = choose_models(chosen, models, model, checkpoint, shared)
    transferred = choose_transfer(chosen, transfer, attack_specs)
    hardware = choose_hardware(shared)
    split = choose_images(chosen, shared)
    hardware = tuned(hardware, split, shared)
    crafted_on = choose_sources(chosen, specs, sources, runs_all=models in (None, "all"))
    grid = cases(chosen, specs, attack_specs, transferred, split, seed=shared.seed, sources=crafted_on)
    store = Store(shared.results_dir / "runs")
    work = prepare(grid, split, store, hardware, checkpoint_dir=shared.checkpoint_dir)
    show(
        store,
        chosen.name,
        chosen.reading,
        grid,
        _ranks(chosen, grid, shared),
        is_published=chosen.threat == SUITES[chosen.name].threat,
    )
    sweep(work, store, hardware, quiet=shared.quiet)
    _print_tables(store, chosen.name, shared)


def rebuild_tables(shared: Shared) -> None:
    """Write the tables of every suite from the store alone."""
    store = Store(shared.results_dir / "runs")
    if not store.suites():
        raise InputError(f"expected verdicts in {store.root}, found none; run a benchmark first, or name --results-dir")
    for suite in store.suites():
        _print_tables(store, suite, shared)


def _print_tables(store: Store, suite: str, shared: Shared) -> None:
    """Write and print the tables of a suite, and say which cases are not in them."""
    scores = read_suite(store, suite)
    before = _rows(shared.results_dir / suite / "scores.csv")
    print(write_tables(scores, shared.results_dir / suite))
    if 0 < len(scores.scores) < before:
        print(
            f"note: the tables of {suite} had {before} rows, now {len(scores.scores)}: the others are "
            "not in this store, or not of these images; use --results-dir to keep tables apart",
            file=sys.stderr,
        )
    print(f"Tables: {shared.results_dir / suite}")
    if scores.incomplete:
        print(
            f"left out of {suite}: {len(scores.incomplete)} cases without all their verdicts "
            f"({', '.join(scores.incomplete[:5])}{', ...' if len(scores.incomplete) > 5 else ''}); run them again",
            file=sys.stderr,
        )


def _rows(scores: Path) -> int:
    """How many rows a table has; 0 where there is none."""
    return len(pd.read_csv(scores)) if scores.is_file() else 0


def compare_stored(
    shared: Shared, *, suites: str, attacks: str, against: str | None, against_dir: Path | None, name: str
) -> None:
    """Compare what is in the store, write the tables and print them."""
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


def train(shared: Shared, *, defense: str, suite: str, recipe: str, overrides: Sequence[str], name: str | None) -> None:
    """Train, and register the result by its card."""
    spec = defense_spec(defense)
    chosen = lookup(suite, SUITES, "suite")
    params, settings = _training_settings(spec, chosen, recipe, overrides)
    name = name or spec.model_name.format(**params)
    if name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"--name must be letters, digits, '.', '_' and '-' (and not 'all'), got {name!r}")
    refuse_workers(shared, "train")
    if shared.batch_size != "auto":
        raise InputError("--batch-size is for attacks; to train with another one use --set batch_size=N")
    hardware = choose_hardware(shared)
    images, validation = _training_images(chosen, settings, shared)
    use_threads(images, hardware)
    threat = chosen.threat if settings.epsilon is None else replace(chosen.threat, epsilon=settings.epsilon)
    stem = shared.checkpoint_dir / chosen.name / name
    done = stem.with_name(name + ".json")
    if done.exists():
        raise InputError(f"{done}: a model of that name is trained already; use another --name, or remove it")
    before = prepare_first_stage(
        spec, settings, recipe, threat, images, validation, stem, hardware, seed=shared.seed, quiet=shared.quiet
    )
    training = Training(
        spec, params, settings, threat, shared.seed, f"{before.digest} {digest(validation)}", before.sha256
    )
    sha256 = run_training(
        training,
        before.images,
        validation,
        stem,
        device=hardware.device,
        precision=hardware.precision,
        pool=before.pool,
        source=before.model,
        quiet=shared.quiet,
    )
    model = ModelSpec(
        name=name,
        suites=(chosen.name,),
        dataset=chosen.dataset,
        architecture=settings.architecture,
        defense=defense,
        checkpoint=f"{chosen.name}/{name}.safetensors",
        sha256=sha256,
        paper=spec.paper,
    )
    record: dict[str, object] = {
        "command": _command(defense, suite, recipe, overrides, name, shared.seed),
        "settings": training.settings(),
        "precision": "bf16" if hardware.precision == torch.bfloat16 else "fp32",
        "device": str(hardware.device),
        "versions": {package: version(package) for package in VERSIONED},
    }
    if spec.bound is not None:
        record["certified"] = _certificate(model, spec.bound, chosen, shared)
    atomic_write(done, card(model, record))
    forget(stem)
    forget(first_stem(stem))
    print(f"Trained {name}: {stem}.safetensors, sha256 {sha256}")
    where = "" if shared.checkpoint_dir == Path("checkpoints") else f" --checkpoint-dir {shared.checkpoint_dir}"
    print(f"Evaluate it: python run_benchmark.py --suite {chosen.name} --models {name}{where}")


def _certificate(model: ModelSpec, bound: str, suite: Suite, shared: Shared) -> dict[str, object]:
    """The certified accuracy on the suite's test images, in percent: a lower bound of any robust accuracy there."""
    split = choose_images(suite, shared)
    classifier = load_model(model, shared.checkpoint_dir, classes=split.classes)
    proven = BOUNDS[bound](classifier, split.x, split.y, suite.threat.epsilon)
    accuracy = round(100 * proven.double().mean().item(), 4)
    return {"bound": bound, "epsilon": suite.threat.epsilon, "accuracy": accuracy, "n": len(split)}


def _command(defense: str, suite: str, recipe: str, overrides: Sequence[str], name: str, seed: int) -> str:
    """The command that trains the same again, wherever its files lie."""
    words = ["train", "--defense", defense, "--suite", suite, "--recipe", recipe]
    words += [word for override in overrides for word in ("--set", override)]
    return shlex.join(["python", "run_benchmark.py", *words, "--name", name, "--seed", str(seed)])


def _training_settings(
    spec: DefenseSpec, suite: Suite, recipe_name: str, overrides: Sequence[str]
) -> tuple[dict[str, float], Recipe]:
    """The loss's parameters and the recipe, with `--set` applied to whichever has that name."""
    params, settings = dict(spec.params), recipe(spec.name, suite.dataset, recipe_name)
    tables = ("milestones", "param_schedule")
    known: Mapping[str, None] = dict.fromkeys([*params, *(f.name for f in fields(Recipe) if f.name not in tables)])
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {override!r}")
        lookup(key, known, "setting")
        if key in params:
            try:
                params[key] = float(value)
            except ValueError:
                raise InputError(f"--set {key} must be a number, got {value!r}") from None
            steady = [entry for entry in settings.param_schedule if entry[0] != key]
            settings = replace(settings, param_schedule=steady)
        else:
            settings = with_overrides(settings, {key: value})
    return params, settings


def _training_images(suite: Suite, settings: Recipe, shared: Shared) -> tuple[Split, Split]:
    """Images to train on, and to choose the best epoch by; both from the training part."""
    split = load(suite.dataset, "train", data_dir=shared.data_dir, quiet=shared.quiet)
    images, validation = holdout(split, settings.validation, seed=shared.seed)
    if settings.train_examples is not None:
        images = balanced_subset(images, settings.train_examples, seed=shared.seed)
    return images, validation


def _ranks(suite: Suite, grid: Sequence[EvalCase], shared: Shared) -> list[tuple[int, ...]]:
    """Each case's place in the tables: by registry, not by the order on the command line."""
    attacks = [*(attack.name for attack in suite.attacks), *ATTACKS]
    models = list(models_of(suite.name, shared.checkpoint_dir))

    def place(name: str) -> int:
        return models.index(name) if name in models else len(models)

    return [
        (place(case.model.name), int(case.is_transfer), attacks.index(case.attack.name), place(case.source.name))
        for case in grid
    ]
