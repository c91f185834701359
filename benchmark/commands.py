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
from attacks.registry import ATTACKS, AttackSpec, attack_spec
from attacks.threat_model import ThreatModel
from benchmark.case import CHUNK_SIZE, EvalCase
from benchmark.cli import Shared
from benchmark.data import Split, balanced_subset, digest, holdout
from benchmark.datasets import DATASETS, load
from benchmark.evaluate import Hardware
from benchmark.first_stage import first_stem, prepare_first_stage
from benchmark.score import read_suite, show
from benchmark.store import Store
from benchmark.suites import SUITES, Suite, cases
from benchmark.sweep import VERSIONED, prepare, sweep
from benchmark.tables import write_tables
from model_zoo.checkpoint import atomic_write
from model_zoo.defenses.registry import DefenseSpec, defense_spec
from model_zoo.progress import forget
from model_zoo.recipes import Recipe, recipe, with_overrides
from model_zoo.registry import MODELS, ModelSpec, card, external_model, find_checkpoint, model_spec, models_of
from model_zoo.training import Training
from model_zoo.training import train as run_training

TINY_IMAGE = 256
"""Pixels times channels."""


def run(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    attacks: str,
    transfer: str | None,
    examples: int | None,
    model: str | None,
    checkpoint: Path | None,
    dataset: str | None,
    norm: str | None,
    epsilon: float | None,
) -> None:
    """Run the benchmark, write the tables and print them."""
    chosen = _suite(suite, dataset, norm, epsilon, examples)
    attack_specs = _attacks(chosen, attacks)
    specs = _models(chosen, models, model, checkpoint, shared)
    transferred = _transfer(chosen, transfer, attack_specs)
    hardware = _hardware(shared)
    split = load(chosen.dataset, "test", data_dir=shared.data_dir, quiet=shared.quiet)
    if chosen.examples is not None:
        split = balanced_subset(split, chosen.examples, seed=shared.seed)

    _use_threads(split, hardware)
    grid = cases(chosen, specs, attack_specs, transferred, split, seed=shared.seed)
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


def train(shared: Shared, *, defense: str, suite: str, recipe: str, overrides: Sequence[str], name: str | None) -> None:
    """Train, and register the result by its card."""
    spec = defense_spec(defense)
    chosen = lookup(suite, SUITES, "suite")
    params, settings = _training_settings(spec, chosen, recipe, overrides)
    name = name or spec.model_name.format(**params)
    if name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"--name must be letters, digits, '.', '_' and '-' (and not 'all'), got {name!r}")
    if shared.batch_size != "auto":
        raise InputError("--batch-size is for attacks; to train with another one use --set batch_size=N")
    hardware = _hardware(shared)
    images, validation = _training_images(chosen, settings, shared)
    _use_threads(images, hardware)
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
    record = {
        "command": _command(defense, suite, recipe, overrides, name, shared.seed),
        "settings": training.settings(),
        "precision": "bf16" if hardware.precision == torch.bfloat16 else "fp32",
        "device": str(hardware.device),
        "versions": {package: version(package) for package in VERSIONED},
    }
    atomic_write(done, card(model, record))
    forget(stem)
    forget(first_stem(stem))
    print(f"Trained {name}: {stem}.safetensors, sha256 {sha256}")
    where = "" if shared.checkpoint_dir == Path("checkpoints") else f" --checkpoint-dir {shared.checkpoint_dir}"
    print(f"Evaluate it: python run_benchmark.py --suite {chosen.name} --models {name}{where}")


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


def _suite(
    name: str | None, dataset: str | None, norm: str | None, epsilon: float | None, examples: int | None
) -> Suite:
    """The suite named, or that of the dataset, with what the user wants otherwise."""
    if dataset is not None:
        lookup(dataset, DATASETS, "dataset")
    suite = lookup(name or dataset or "digits", SUITES, "suite")
    if dataset not in (None, suite.dataset):
        raise InputError(
            f"suite {suite.name} is of dataset {suite.dataset}, got --dataset {dataset}; leave one of them out"
        )
    if norm not in (None, suite.threat.norm) and epsilon is None:
        raise InputError(f"--norm {norm} needs --epsilon: that of suite {suite.name} is for {suite.threat.norm}")
    threat = ThreatModel(norm or suite.threat.norm, suite.threat.epsilon if epsilon is None else epsilon)
    return replace(suite, threat=threat, examples=examples or suite.examples)


def _attacks(suite: Suite, names: str) -> list[AttackSpec]:
    """The attacks named, with the suite's settings where it has any."""
    specs = (
        [spec for spec in suite.attacks if suite.threat.norm in spec.norms]
        if names == "all"
        else [suite.attack(name) or attack_spec(name) for name in _names(names)]
    )
    for spec in specs:
        if suite.threat.norm not in spec.norms:
            raise InputError(f"attack {spec.name} is defined for {', '.join(spec.norms)}, got {suite.threat.norm}")
    return specs


def _transfer(suite: Suite, names: str | None, attacks: Sequence[AttackSpec]) -> list[AttackSpec]:
    """The attacks to transfer: those named, else those of the suite's that run white-box too."""
    if names == "none":
        return []
    if names is None:
        return [attack for attack in attacks if attack.name in suite.transfer]
    return _attacks(suite, names)


def _models(
    suite: Suite, names: str | None, factory: str | None, checkpoint: Path | None, shared: Shared
) -> list[ModelSpec]:
    """The models named, and the user's own; all of the suite's where the user says nothing."""
    if factory is None:
        if checkpoint is not None:
            raise InputError("--checkpoint needs --model PATH.py:FACTORY; for registered models use --checkpoint-dir")
        return _registered(suite, names or "all", shared)
    own = external_model(factory, checkpoint, dataset=suite.dataset, suite=suite.name)
    others = _registered(suite, names, shared) if names else []
    if own.name in [spec.name for spec in others]:
        own = replace(own, name=f"{own.name} ({factory})")
    return [own, *others]


def _registered(suite: Suite, names: str, shared: Shared) -> list[ModelSpec]:
    """The models of those names; "all" leaves out, and says so, what has no checkpoint here."""
    if names != "all":
        specs = [model_spec(name, suite.name, shared.checkpoint_dir) for name in _names(names)]
        _name_stand_ins(specs)
        return specs
    here = []
    for spec in models_of(suite.name, shared.checkpoint_dir).values():
        try:
            find_checkpoint(spec, shared.checkpoint_dir)
            here.append(spec)
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not here:
        raise InputError(
            f"suite {suite.name} has no model with a checkpoint in {shared.checkpoint_dir}; "
            f"train one: python run_benchmark.py train --defense trades --suite {suite.name}"
        )
    _name_stand_ins(here)
    return here


def _name_stand_ins(specs: Sequence[ModelSpec]) -> None:
    """Say which models are the user's own, under the name of a registered one."""
    for spec in specs:
        registered = [model for model in MODELS if model.name == spec.name and set(model.suites) & set(spec.suites)]
        if any(model.sha256 != spec.sha256 for model in registered):
            print(
                f"note: {spec.name} is your {spec.checkpoint}, not the registered model of that name", file=sys.stderr
            )


def _names(text: str) -> list[str]:
    """Names in a list with commas, each once."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise InputError(f"expected names separated by commas, got {text!r}")
    return names


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


def _use_threads(split: Split, hardware: Hardware) -> None:
    """One thread for tiny images: they are done before a second one has woken up, and on shared cores it never is."""
    if hardware.device.type == "cpu" and split.x[0].numel() <= TINY_IMAGE:
        torch.set_num_threads(1)


def _hardware(shared: Shared) -> Hardware:
    """Device, precision and batch size as asked for, or as the machine has it."""
    if shared.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no usable CUDA device; use --device cpu or auto")
    device = "cuda" if shared.device != "cpu" and torch.cuda.is_available() else "cpu"
    if shared.batch_size != "auto" and not (shared.batch_size.isdecimal() and int(shared.batch_size) > 0):
        raise InputError(f"--batch-size must be auto or a positive whole number, got {shared.batch_size!r}")
    return Hardware(
        device=torch.device(device),
        precision=torch.bfloat16 if shared.precision == "bf16" else torch.float32,
        batch_size=CHUNK_SIZE if shared.batch_size == "auto" else int(shared.batch_size),
    )
