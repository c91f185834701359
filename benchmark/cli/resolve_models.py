"""The models that the options name: registered, downloaded, or the user's own."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attacks.errors import InputError
from attacks.models.normalisation import normalisation_of, put_in_front
from attacks.names import check_name, lookup
from benchmark.cli.options import OwnModel, Shared
from benchmark.cli.resolve import names_in
from benchmark.cli.resolve_hardware import shape_of
from benchmark.data.datasets import DATASETS
from benchmark.data.own_images import OwnImages
from benchmark.suites.models import models_for
from benchmark.suites.suite import Suite
from benchmark.sweep.progress import said_if_slow
from model_zoo.load import external_model, find_checkpoint, identified, obtain_checkpoint, robustbench_model
from model_zoo.mean_logits import JOINED, mean_of
from model_zoo.model_spec import ModelSpec
from model_zoo.program_spec import program_model
from model_zoo.registry import MODELS, after_last_epoch
from model_zoo.robustbench_adapter import PREFIX
from model_zoo.smoothed import NOISE, smoothed
from model_zoo.surrogates import own_surrogate, users_surrogate

UNDEFENDED = "natural"
"""The model of a suite that a user's own is attacked from."""


def choose_models(
    suite: Suite, names: str | None, own: OwnModel, shared: Shared, brought: OwnImages | None = None
) -> list[ModelSpec]:
    """The models named, and the user's own; all of the suite's where the user says nothing.

    Args:
        brought: the images that they are to take, where these are the user's own.
    """
    if not own.is_given:
        if own.output is not None:
            raise InputError("--output needs --model PATH.py:FACTORY; registered models return their logits")
        if own.mean is not None or own.std is not None:
            raise InputError("--mean and --std are for a model of your own; name it by --model, or leave them out")
        if own.trust_code:
            raise InputError("--trust-code is for a program named by --checkpoint; leave it out")
        if own.rejects:
            raise InputError("--rejects is for your own model (--model PATH.py:FACTORY); registered models say so")
        if own.known_as is not None:
            raise InputError("--name is for your own model (--model PATH.py:FACTORY); registered models have names")
        return _registered(suite, names or "all", shared, brought)
    if own.model is not None and own.trust_code:
        raise InputError(
            f"--trust-code is for a --checkpoint that is a program, got --model {own.model}, whose code runs anyway; "
            "leave it out, or if the checkpoint is a program, give it without --model and with --trust-code"
        )
    asking = f"asking {own.model or own.checkpoint} about a few images how it must be run ..."
    with said_if_slow(asking, quiet=shared.quiet):
        spec = replace(_spec_of(suite, own, brought), rejects=own.rejects)
    if own.known_as is not None:
        spec = replace(spec, name=check_name(own.known_as, "--name"))
    others = _registered(suite, names, shared, brought) if names else []
    if spec.name in [other.name for other in others]:
        spec = replace(spec, name=f"{spec.name} ({own.model or own.checkpoint})")
    return [spec, *others]


def _spec_of(suite: Suite, own: OwnModel, brought: OwnImages | None) -> ModelSpec:
    """The user's own model, of a factory or of a file that is a model by itself."""
    said = normalisation_of(own.mean, own.std)
    about: dict[str, Any] = {"dataset": suite.dataset, "suite": suite.name, "output": own.output or ""}
    about["shape"] = shape_of(suite, brought)
    if own.model is not None:
        classes = DATASETS[suite.dataset].classes if brought is None else brought.classes
        return external_model(own.model, own.checkpoint, **about, classes=classes, normalisation=said, tell=to_stderr)
    assert own.checkpoint is not None
    return program_model(own.checkpoint, **about, normalisation=put_in_front(said), trusts_code=own.trust_code)


def choose_surrogates(
    suite: Suite, models: Sequence[ModelSpec], function: str | None, shared: Shared, brought: OwnImages | None = None
) -> dict[str, ModelSpec]:
    """By the name of a model, what adaptive attacks on it search on: what the user's function makes, else its mask's.

    Args:
        function: PATH.py:FUNCTION for all models, "none" for no adaptive attack, None for those of the masks.
    """
    if function == "none":
        return {}
    if function is None:
        return {spec.name: own for spec in models if (own := own_surrogate(spec)) is not None}
    classes = DATASETS[suite.dataset].classes if brought is None else brought.classes
    about: dict[str, Any] = {"shape": shape_of(suite, brought), "classes": classes}
    return {spec.name: users_surrogate(spec, function, shared.checkpoint_dir, **about) for spec in models}


def to_stderr(line: str) -> None:
    """Tell the user, beside what is computed."""
    print(line, file=sys.stderr)


def choose_sources(
    suite: Suite,
    models: Sequence[ModelSpec],
    names: str | None,
    shared: Shared,
    brought: OwnImages | None = None,
    *,
    runs_all: bool,
) -> list[ModelSpec]:
    """The models that transfer attacks are crafted on.

    Those named; else the suite's few where all its models run; else all that run, and for a user's own model that runs
    alone the suite's undefended one. A source that does not run itself is no row of the tables.
    """
    if names is not None:
        return _named_sources(suite, models, names_in(names), shared, brought)
    few = [spec for spec in models if spec.name in suite.sources and not spec.code]
    if runs_all and few:
        return few
    if not all(spec.code and not spec.architecture.startswith(PREFIX) for spec in models):
        return list(models)
    lent = _undefended(suite, shared) if brought is None or _is_alike(suite, brought) else None
    if lent is not None and lent.name in [spec.name for spec in models]:
        lent = replace(lent, name=f"{lent.name} of {suite.name}")
    return [*models, *([lent] if lent else [])]


def _named_sources(
    suite: Suite, models: Sequence[ModelSpec], names: Sequence[str], shared: Shared, brought: OwnImages | None
) -> list[ModelSpec]:
    """The models of those names, "all" for all that run; one of the same network as another is that one.

    "a+b" is the mean of the logits of a and b.
    """
    if names == ["all"]:
        return list(models)
    running = {spec.name: spec for spec in models}
    twins = {str(spec.identity): spec for spec in models}

    def find(name: str) -> ModelSpec:
        if name in running:
            return running[name]
        if JOINED in name:
            return mean_of([find(member) for member in name.split(JOINED)])
        (lent,) = _registered(suite, name, shared, brought)
        return twins.get(str(lent.identity), lent)

    return [find(name) for name in names]


def _is_alike(suite: Suite, brought: OwnImages) -> bool:
    """Whether a user's images have the shape and the number of classes of a suite's own, so its models take them."""
    known = DATASETS.get(suite.dataset)
    alike = known is not None and (known.shape, known.classes) == (brought.shape, brought.classes)
    if known is not None and not alike:
        to_stderr(f"note: the models of {suite.name} take other images or classes: nothing is transferred from them")
    return alike


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


def _registered(suite: Suite, names: str, shared: Shared, brought: OwnImages | None) -> list[ModelSpec]:
    """The models of those names; "all" leaves out, and says so, what has no checkpoint here."""
    known = models_for(suite.name, shared.checkpoint_dir)
    if names != "all":
        specs = [_named(name, suite, known, shared, brought) for name in names_in(names)]
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


def _named(
    name: str, suite: Suite, known: Mapping[str, ModelSpec], shared: Shared, brought: OwnImages | None
) -> ModelSpec:
    """The model of that name, of the suite or of RobustBench; or of that name after its last epoch of training."""
    base, plus, part = name.rpartition("+")
    if plus and name not in known and part.startswith(NOISE):
        return smoothed(_named(base, suite, known, shared, brought), part)
    if not name.startswith(PREFIX):
        last = None if name in known else after_last_epoch(name, known, shared.checkpoint_dir)
        return last or lookup(name, known, f"model of suite {suite.name}")
    where = {"dataset": suite.dataset, "norm": suite.threat.norm, "suite": suite.name}
    return robustbench_model(name, shared.checkpoint_dir, **where, shape=shape_of(suite, brought))


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
