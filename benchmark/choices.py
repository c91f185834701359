"""What the options name: suite, models, attacks and hardware, checked before anything is computed."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from attacks.errors import InputError
from attacks.names import lookup
from attacks.registry import ATTACKS, attack_spec
from attacks.spec import AttackSpec
from attacks.threat_model import ThreatModel
from benchmark.case import CHUNK_SIZE
from benchmark.cli import Shared
from benchmark.data import Split, balanced_subset
from benchmark.datasets import DATASETS, load
from benchmark.hardware import Hardware, fastest_precision, is_tiny
from benchmark.papers import models_for
from benchmark.suite import TRANSFERRED, Suite
from benchmark.suites import SUITES
from benchmark.workers import can_fork
from model_zoo.program_spec import program_model
from model_zoo.registry import (
    MODELS,
    ModelSpec,
    after_last_epoch,
    external_model,
    find_checkpoint,
    identified,
    obtain_checkpoint,
    robustbench_model,
)
from model_zoo.robustbench_adapter import PREFIX

UNDEFENDED = "natural"
"""The model of a suite that a user's own is attacked from."""


def choose_suite(
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


def with_examples(suite: Suite, examples: Mapping[str, int | None]) -> Suite:
    """The suite on other numbers of images: "" for all its attacks, or an attack's name, or "transfer"; None is all."""
    named = {name: wanted for name, wanted in examples.items() if name}
    for name in named:
        lookup(name, {TRANSFERRED: None, **ATTACKS}, "attack, before the = of --examples")
    if "" in examples:
        suite = replace(suite, examples=examples[""], fewer={})
    limits = {**suite.fewer, **named}
    return replace(suite, fewer={name: limit for name, limit in limits.items() if limit is not None})


def choose_attacks(suite: Suite, names: str) -> list[AttackSpec]:
    """The attacks named, with the suite's settings where it has any."""
    specs = (
        [spec for spec in suite.attacks if suite.threat.norm in spec.norms]
        if names == "all"
        else [suite.attack(name) or attack_spec(name) for name in names_in(names)]
    )
    for spec in specs:
        if suite.threat.norm not in spec.norms:
            raise InputError(f"attack {spec.name} is defined for {', '.join(spec.norms)}, got {suite.threat.norm}")
    return specs


def choose_transfer(suite: Suite, names: str | None, attacks: Sequence[AttackSpec]) -> list[AttackSpec]:
    """The attacks to transfer: those named, else those of the suite's that run white-box too."""
    if names == "none":
        return []
    if names is None:
        return [attack for attack in attacks if attack.name in suite.transfer]
    return choose_attacks(suite, names)


def choose_models(
    suite: Suite,
    names: str | None,
    factory: str | None,
    checkpoint: Path | None,
    shared: Shared,
    *,
    output: str | None = None,
    trusts_code: bool = False,
) -> list[ModelSpec]:
    """The models named, and the user's own; all of the suite's where the user says nothing.

    Args:
        trusts_code: whether a checkpoint may be a program, which holds code.
    """
    if factory is None and checkpoint is None:
        if output is not None:
            raise InputError("--output needs --model PATH.py:FACTORY; registered models return their logits")
        if trusts_code:
            raise InputError("--trust-code is for a program named by --checkpoint; leave it out")
        return _registered(suite, names or "all", shared)
    own = _own(suite, factory, checkpoint, output or "", trusts_code=trusts_code)
    others = _registered(suite, names, shared) if names else []
    if own.name in [spec.name for spec in others]:
        own = replace(own, name=f"{own.name} ({factory or checkpoint})")
    return [own, *others]


def _own(suite: Suite, factory: str | None, checkpoint: Path | None, output: str, *, trusts_code: bool) -> ModelSpec:
    """The user's own model, of a factory or of a file that is a model by itself."""
    dataset, shape = suite.dataset, DATASETS[suite.dataset].shape
    about = {"dataset": dataset, "suite": suite.name, "output": output}
    if factory is not None:
        return external_model(factory, checkpoint, **about, shape=shape, tell=_to_stderr)
    assert checkpoint is not None
    return program_model(checkpoint, **about, shape=shape, trusts_code=trusts_code)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def choose_sources(
    suite: Suite, models: Sequence[ModelSpec], names: str | None, shared: Shared, *, runs_all: bool
) -> list[ModelSpec]:
    """The models that transfer attacks are crafted on.

    Those named; else the suite's few where all its models run; else all that run, and for a user's own model that runs
    alone the suite's undefended one, which then is no row of the tables.
    """
    if names is not None:
        known = {spec.name: spec for spec in models}
        return [lookup(name, known, "source (it must be one of --models)") for name in names_in(names)]
    few = [spec for spec in models if spec.name in suite.sources and not spec.code]
    if runs_all and few:
        return few
    if not all(spec.code and not spec.architecture.startswith(PREFIX) for spec in models):
        return list(models)
    lent = _undefended(suite, shared)
    if lent is not None and lent.name in [spec.name for spec in models]:
        lent = replace(lent, name=f"{lent.name} of {suite.name}")
    return [*models, *([lent] if lent else [])]


def _undefended(suite: Suite, shared: Shared) -> ModelSpec | None:
    """The suite's model `natural`, or that of its dataset; None where its checkpoint is not here."""
    for name in (suite.name, suite.dataset):
        spec = models_for(name, shared.checkpoint_dir).get(UNDEFENDED)
        try:
            if spec is not None:
                find_checkpoint(spec, shared.checkpoint_dir)
                return identified(spec, shared.checkpoint_dir)
        except InputError:
            continue
    return None


def _registered(suite: Suite, names: str, shared: Shared) -> list[ModelSpec]:
    """The models of those names; "all" leaves out, and says so, what has no checkpoint here."""
    known = models_for(suite.name, shared.checkpoint_dir)
    if names != "all":
        specs = [_named(name, suite, known, shared) for name in names_in(names)]
        for spec in (spec for spec in specs if not spec.code):
            obtain_checkpoint(spec, shared.checkpoint_dir, shared.mirror_dir)
        _name_stand_ins(specs)
        return [identified(spec, shared.checkpoint_dir) for spec in specs]
    here, missing = [], []
    for spec in known.values():
        try:
            obtain_checkpoint(spec, shared.checkpoint_dir, shared.mirror_dir)
            here.append(identified(spec, shared.checkpoint_dir))
        except InputError as error:
            missing.append(f"left out: {error}")
    if not here:
        raise InputError(
            f"suite {suite.name} has no model with a checkpoint in {shared.checkpoint_dir}; "
            f"train one: python run_benchmark.py train --defense trades --suite {suite.name}"
        )
    for line in missing:
        print(line, file=sys.stderr)
    _name_stand_ins(here)
    return here


def _named(name: str, suite: Suite, known: Mapping[str, ModelSpec], shared: Shared) -> ModelSpec:
    """The model of that name, of the suite or of RobustBench; or of that name after its last epoch of training."""
    if not name.startswith(PREFIX):
        last = None if name in known else after_last_epoch(name, known, shared.checkpoint_dir)
        return last or lookup(name, known, f"model of suite {suite.name}")
    told = {"dataset": suite.dataset, "norm": suite.threat.norm, "suite": suite.name}
    return robustbench_model(name, shared.checkpoint_dir, **told, shape=DATASETS[suite.dataset].shape)


def _name_stand_ins(specs: Sequence[ModelSpec]) -> None:
    """Say which models are the user's own, under the name of a registered one."""
    for spec in specs:
        registered = [model for model in MODELS if model.name == spec.name and set(model.suites) & set(spec.suites)]
        if any(model.sha256 != spec.sha256 for model in registered):
            print(
                f"note: {spec.name} is your {spec.checkpoint}, not the registered model of that name", file=sys.stderr
            )


def without_twins(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """The first of those that are one network with the same weights: tables show a case once. Says what is left out."""
    kept: dict[str, ModelSpec] = {}
    for spec in specs:
        twin = kept.setdefault(str(spec.identity), spec)
        if twin is not spec:
            print(f"note: {spec.name} has the weights of {twin.name}, and is left out", file=sys.stderr)
    return list(kept.values())


def names_in(text: str) -> list[str]:
    """Names in a list with commas, each once."""
    return list(dict.fromkeys(all_names_in(text)))


def all_names_in(text: str) -> list[str]:
    """Names in a list with commas. Raises: InputError for none, and for "all" among others."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"expected names separated by commas, got {text!r}")
    if "all" in names and len(names) > 1:
        raise InputError(f"{text}: 'all' stands alone; leave out it, or the other names")
    return names


def check_name(name: str) -> str:
    """A name for files of ours. Raises: InputError for one that leads elsewhere."""
    if name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"--name must be letters, digits, '.', '_' and '-' (and not 'all'), got {name!r}")
    return name


def refuse_workers(shared: Shared, command: str) -> None:
    """Raise InputError for an option without effect."""
    given = {"workers": shared.workers != "auto", "executor": shared.executor != "local"}
    for option in (name for name, is_given in given.items() if is_given):
        raise InputError(f"--{option} is for running the benchmark, {command} has no use for it; leave it out")


def choose_images(suite: Suite, shared: Shared) -> Split:
    """The test images of a suite, or its seeded balanced subset."""
    split = load(
        suite.dataset,
        "test",
        data_dir=shared.data_dir,
        mirror=shared.mirror_dir,
        classes=shared.classes,
        quiet=shared.quiet,
    )
    if suite.examples is None:
        return split
    if suite.examples > len(split):
        print(
            f"note: {suite.dataset} has {len(split)} test images, not {suite.examples}: all are taken", file=sys.stderr
        )
    return balanced_subset(split, suite.examples, seed=shared.seed)


def tuned(hardware: Hardware, suite: Suite, split: Split, shared: Shared) -> Hardware:
    """The hardware set up for images of this size: threads, processes, and precision, unless chosen."""
    on_ray = shared.executor == "ray"
    spreads = (is_tiny(split) or on_ray) and hardware.device.type == "cpu"
    workers = processes(shared) if spreads or shared.workers != "auto" else 1
    if workers > 1 and not on_ray and hardware.device.type == "cpu" and not can_fork():
        raise InputError("--workers on the CPU needs Linux; use --workers 1, or --executor ray")
    if shared.gpus_per_worker is not None and not on_ray:
        raise InputError("--gpus-per-worker is for --executor ray; without it every worker uses the next GPU")
    if shared.gpus_per_worker is not None and shared.gpus_per_worker < 0:
        raise InputError(f"--gpus-per-worker must be 0 or more, got {shared.gpus_per_worker:g}")
    share = float(hardware.device.type == "cuda") if shared.gpus_per_worker is None else shared.gpus_per_worker
    if workers > 1:
        torch.set_num_threads(1)
    use_threads(split, hardware)
    precision = search_precision(hardware, suite, split, shared)
    return replace(hardware, precision=precision, workers=workers, executor=shared.executor, gpus_per_worker=share)


def processes(shared: Shared) -> int:
    """How many as asked for, else one on each core."""
    if shared.workers != "auto":
        return positive(shared.workers, "--workers")
    return len(os.sched_getaffinity(0)) if can_fork() or shared.executor == "ray" else 1


def search_precision(hardware: Hardware, suite: Suite, split: Split, shared: Shared) -> torch.dtype:
    """As asked for; else the suite's; else that of `choose_precision`."""
    if shared.precision == "auto" and suite.precision == "fp32":
        return torch.float32
    return choose_precision(hardware, split, shared)


def choose_precision(hardware: Hardware, split: Split, shared: Shared) -> torch.dtype:
    """As asked for; else the device's fastest, but float32 for tiny images, which gain nothing from another."""
    if shared.precision == "auto" and not is_tiny(split):
        return fastest_precision(hardware.device)
    return hardware.precision


def use_threads(split: Split, hardware: Hardware) -> None:
    """One thread for tiny images: they are done before a second one has woken up, and on shared cores it never is."""
    if hardware.device.type == "cpu" and is_tiny(split):
        torch.set_num_threads(1)


def choose_hardware(shared: Shared) -> Hardware:
    """Device, precision and batch size as asked for, or as the machine has it."""
    if shared.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no usable CUDA device; use --device cpu or auto")
    device = "cuda" if shared.device != "cpu" and torch.cuda.is_available() else "cpu"
    return Hardware(
        device=torch.device(device),
        precision=torch.bfloat16 if shared.precision == "bf16" else torch.float32,
        batch_size=CHUNK_SIZE if shared.batch_size == "auto" else positive(shared.batch_size, "--batch-size"),
        finds_batch=shared.batch_size == "auto",
    )


def positive(text: str, option: str) -> int:
    """The value of an option that is "auto" or a positive number, where it is not "auto"."""
    if not (re.fullmatch("[0-9]{1,9}", text) and int(text) > 0):
        raise InputError(f"{option} must be auto or a positive whole number, got {text!r}")
    return int(text)
