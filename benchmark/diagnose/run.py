"""The diagnosis of some models: short runs to the verdict store, direct checks, and what they come to together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.oracle import CountingClassifier
from attacks.precision import full_float32
from attacks.rejection import ClassesAlone
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split, balanced_subset
from benchmark.diagnose.binarization import binarization
from benchmark.diagnose.boundary_check import boundary
from benchmark.diagnose.cases import TESTED, Plan, Roles, roles
from benchmark.diagnose.finding import Measured, findings, unknown
from benchmark.diagnose.forward_checks import forward_checks
from benchmark.diagnose.gradient_checks import saturated, true_gradient, zero_gradient
from benchmark.diagnose.loss_checks import converged, smooth
from benchmark.diagnose.randomised import randomised_rows
from benchmark.diagnose.verdict_checks import verdict_checks
from benchmark.evaluation.batch_size import on_fitting_batches
from benchmark.evaluation.hardware import Hardware
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import case_key
from benchmark.suites.suite import Suite
from benchmark.sweep.prepare import load_on
from benchmark.sweep.run import run_cases
from model_zoo.model_spec import ModelSpec

FACT_IMAGES = 64
"""How many images the checks of the forward pass look at."""


def diagnose_models(
    suite: Suite,
    models: Sequence[ModelSpec],
    plan: Plan,
    split: Split,
    store: Store,
    hardware: Hardware,
    *,
    checkpoint_dir: Path = Path(),
    models_here: Mapping[str, nn.Module] = MappingProxyType({}),
    quiet: bool = False,
) -> list[Diagnosis]:
    """Diagnose the attack of a plan on each model; a diagnosis is written to the store as soon as it is made.

    Args:
        split: the images; the plan says how many of them are taken.
        models_here: by name, those that are loaded already: on the device, in eval mode, frozen.

    Raises: InputError for images or a model that no number would mean anything for.
    """
    grid = {spec.name: roles(suite, spec, plan, split) for spec in models}
    cases = [case for found in grid.values() for case in found.values()]
    specs = {spec.name: spec for case in cases for spec in (case.model, case.source)}
    loaded = {
        name: models_here[name] if name in models_here else load_on(hardware, spec, split, checkpoint_dir)
        for name, spec in specs.items()
    }
    run_cases(
        cases,
        (),
        split,
        store,
        hardware,
        checkpoint_dir=checkpoint_dir,
        models=loaded,
        quiet=quiet,
        is_shown=False,
    )
    made = []
    for spec in models:
        networks = loaded[spec.name], loaded[plan.source_of(spec).name]
        with full_float32():  # as the judge computes
            found = _diagnosis(suite, spec, plan, split, _verdicts(store, grid[spec.name]), *networks, hardware)
        made.append(found)
        store.write_diagnosis(suite.name, found)
    return made


def _verdicts(store: Store, found: Roles) -> dict[str, Verdicts]:
    """What the cases of one model showed, by role."""
    shown = {role: store.read(case_key(case), case.n) for role, case in found.items()}
    return {role: verdicts[0] for role, verdicts in shown.items() if verdicts is not None}


def _diagnosis(
    suite: Suite,
    spec: ModelSpec,
    plan: Plan,
    split: Split,
    shown: Mapping[str, Verdicts],
    model: nn.Module,
    searched: nn.Module,
    hardware: Hardware,
) -> Diagnosis:
    is_adaptive = searched is not model
    images = balanced_subset(split, plan.images_for(spec, len(split)), seed=plan.seed)
    x, y, index = images.on(hardware.device)
    tested = ThreatModel(suite.threat.norm, plan.epsilon)
    correct = np.flatnonzero(shown[TESTED].correct)
    counting = CountingClassifier(ClassesAlone(searched, split.classes) if spec.rejects else searched)
    is_random = plan.source_of(spec).randomized
    about: dict[str, Any] = {"is_random": is_random, "is_adaptive": is_adaptive, "is_half": _is_half(searched)}
    direct, hardware = on_fitting_batches(
        f"{spec.name}: checks of gradient and loss",
        hardware,
        lambda now: _direct(counting, plan, x[correct], y[correct], index[correct], tested, now.batch_size, **about),
    )
    measured = [*verdict_checks(shown), *direct]
    passes = roles(suite, spec, plan, split)[TESTED]
    known: dict[str, Any] = {"judge_draws": passes.judge_draws, "eot": passes.eot, "is_adaptive": is_adaptive}
    measured += forward_checks(model, x[:FACT_IMAGES], **known)
    hidden, per_image = _hidden(suite, spec, plan, split, model, searched, hardware)
    measured.append(hidden)
    forwards, backwards = per_image[0] + counting.forwards / len(y), per_image[1] + counting.backwards / len(y)
    if spec.randomized:
        who: dict[str, Any] = {
            "surrogate": searched if is_adaptive else None,
            "rejected": split.classes if spec.rejects else None,
        }
        rows, *more = randomised_rows(model, x, y, index, tested, plan.attack, seed=plan.seed, **who)
        measured += rows
        forwards, backwards = forwards + more[0] / len(y), backwards + more[1] / len(y)
    forwards += sum(float(verdicts.forwards.sum()) for verdicts in shown.values()) / len(y)
    backwards += sum(float(verdicts.backwards.sum()) for verdicts in shown.values()) / len(y)
    return Diagnosis(
        model=spec.name,
        network=spec.identity,
        attack=f"{plan.attack_on(spec)}, {suite.threat.norm} {plan.epsilon:.6g}",
        n=len(y),
        forwards=round(forwards, 1),
        backwards=round(backwards, 1),
        findings=findings(measured),
    )


def _hidden(
    suite: Suite,
    spec: ModelSpec,
    plan: Plan,
    split: Split,
    model: nn.Module,
    searched: nn.Module,
    hardware: Hardware,
) -> tuple[Measured, tuple[float, float]]:
    """What the binarization test says, and its forward and backward passes an image."""
    if spec.randomized:  # a read-out of single draws is another one at each pass
        return unknown("binarization", "the model answers at random: a point is hidden in some draws alone"), (0, 0)
    x, _, index = balanced_subset(split, min(plan.hidden, len(split)), seed=plan.seed).on(hardware.device)
    hidden, _ = on_fitting_batches(
        f"{spec.name}: binarization test",
        hardware,
        lambda now: binarization(
            model,
            x,
            index,
            suite.threat,
            plan.attack,
            epsilon=plan.epsilon,
            surrogate=None if searched is model else searched,
            seed=plan.seed,
            batch_size=now.batch_size,
        ),
    )
    return hidden.measured, (hidden.forwards / len(x), hidden.backwards / len(x))


def _is_half(model: nn.Module) -> bool:
    """Whether a model computes in 16 bits, as far as its parameters tell."""
    return any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())


def _direct(
    model: CountingClassifier,
    plan: Plan,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    batch_size: int,
    *,
    is_random: bool,
    is_adaptive: bool,
    is_half: bool,
) -> list[Measured]:
    """The checks of gradient and loss of what the attack searches on, as exact as the judge.

    On images that are classified correctly. A surrogate's gradient is a stand-in's, and need not be that of its values.
    """
    if not len(x):
        return [unknown(check, "no image is classified correctly") for check in DIRECT]
    keyed: dict[str, Any] = {"seed": plan.seed, "batch_size": batch_size}
    found = [zero_gradient(model, x, y, batch_size=batch_size), saturated(model, x, y, batch_size=batch_size)]
    if is_adaptive:
        why = "the attack goes by a surrogate, whose gradient is a stand-in's"
        found += [unknown("true-gradient", why), unknown("boundary", why)]
    else:
        found.append(true_gradient(model, x, y, threat, index, is_half=is_half, **keyed))
        moves = unknown("boundary", "the model answers at random: its boundary moves")
        found.append(moves if is_random else boundary(model, x, y, batch_size=batch_size))
    found.append(smooth(model, x, y, threat, index, **keyed))
    if is_random:
        return [*found, unknown("converged", "the model answers at random: its loss has no path")]
    return [*found, converged(plan.attack, model, x, y, threat, index, **keyed)]


DIRECT = ("zero-gradients", "saturated-loss", "true-gradient", "boundary", "smooth-loss", "converged")
