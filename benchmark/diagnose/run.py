"""The diagnosis of some models: short runs to the verdict store, direct checks, and what they come to together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from attacks.oracle import CountingClassifier
from attacks.precision import full_float32
from attacks.threat_model import ThreatModel
from benchmark.data.split import Split, balanced_subset
from benchmark.diagnose.binarization import binarization
from benchmark.diagnose.cases import TESTED, Plan, Roles, roles
from benchmark.diagnose.finding import Measured, findings
from benchmark.diagnose.forward_checks import forward_checks
from benchmark.diagnose.gradient_checks import saturated, true_gradient, zero_gradient
from benchmark.diagnose.loss_checks import converged, smooth
from benchmark.diagnose.randomised import randomised_rows
from benchmark.diagnose.verdict_checks import verdict_checks
from benchmark.evaluation.hardware import Hardware
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import case_key
from benchmark.suites.suite import Suite
from benchmark.sweep.prepare import load_on
from benchmark.sweep.run import run_cases
from model_zoo.model_spec import ModelSpec

HIDDEN = 64
"""The most images in which the binarization test hides a point."""


def diagnose_models(
    suite: Suite,
    models: Sequence[ModelSpec],
    plan: Plan,
    split: Split,
    store: Store,
    hardware: Hardware,
    *,
    checkpoint_dir: Path = Path(),
    surrogates: Mapping[str, nn.Module] = MappingProxyType({}),
    quiet: bool = False,
) -> list[Diagnosis]:
    """Diagnose the attack of a plan on each model; a diagnosis is written to the store as soon as it is made.

    Args:
        split: the images; the plan says how many of them are taken.
        surrogates: by the name of a model, what an adaptive attack searches on in its place.

    Raises: InputError for images or a model that no number would mean anything for.
    """
    grid = {spec.name: roles(suite, spec, plan, split) for spec in models}
    cases = [case for found in grid.values() for case in found.values()]
    specs = {spec.name: spec for case in cases for spec in (case.model, case.source)}
    loaded = {name: load_on(hardware, spec, split, checkpoint_dir) for name, spec in specs.items()}
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
        images = balanced_subset(split, plan.images_for(spec, len(split)), seed=plan.seed)
        asked = loaded[spec.name], surrogates.get(spec.name)
        made.append(_diagnosis(suite, spec, plan, images, _verdicts(store, grid[spec.name]), *asked, hardware))
        store.write_diagnosis(suite.name, made[-1])
    return made


def _verdicts(store: Store, found: Roles) -> dict[str, Verdicts]:
    """What the cases of one model showed, by role."""
    shown = {role: store.read(case_key(case), case.n) for role, case in found.items()}
    return {role: verdicts[0] for role, verdicts in shown.items() if verdicts is not None}


def _diagnosis(
    suite: Suite,
    spec: ModelSpec,
    plan: Plan,
    images: Split,
    shown: Mapping[str, Verdicts],
    model: nn.Module,
    surrogate: nn.Module | None,
    hardware: Hardware,
) -> Diagnosis:
    x, y, index = images.on(hardware.device)
    tested = ThreatModel(suite.threat.norm, plan.epsilon)
    correct = np.flatnonzero(shown[TESTED].correct)
    counting = CountingClassifier(model)
    on = x[correct], y[correct], index[correct], tested, hardware.batch_size
    measured = [*verdict_checks(shown), *_direct(counting, spec, plan, *on)]
    measured += forward_checks(model, x[:HIDDEN], is_random=spec.randomized)
    hidden = binarization(
        model,
        x[:HIDDEN],
        index[:HIDDEN],
        suite.threat,
        plan.attack,
        epsilon=plan.epsilon,
        surrogate=surrogate,
        seed=plan.seed,
        batch_size=hardware.batch_size,
    )
    measured.append(hidden.measured)
    forwards, backwards = counting.forwards + hidden.forwards, counting.backwards + hidden.backwards
    if spec.randomized:
        rows, more_forwards, more_backwards = randomised_rows(model, x, y, index, tested, plan.attack, seed=plan.seed)
        measured += rows
        forwards, backwards = forwards + more_forwards, backwards + more_backwards
    forwards += sum(float(verdicts.forwards.sum()) for verdicts in shown.values())
    backwards += sum(float(verdicts.backwards.sum()) for verdicts in shown.values())
    return Diagnosis(
        model=spec.name,
        network=spec.identity,
        attack=f"{plan.attack.name}, {suite.threat.norm} {plan.epsilon:.6g}",
        n=len(y),
        forwards=round(forwards / len(y), 1),
        backwards=round(backwards / len(y), 1),
        findings=findings(measured),
    )


def _direct(
    model: CountingClassifier,
    spec: ModelSpec,
    plan: Plan,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    batch_size: int,
) -> list[Measured]:
    """The checks of gradient and loss, on images that are classified correctly; as exact as the judge."""
    keyed: dict[str, Any] = {"seed": plan.seed, "batch_size": batch_size}
    with full_float32():
        found = [
            zero_gradient(model, x, y, batch_size=batch_size),
            saturated(model, x, y, batch_size=batch_size),
            true_gradient(model, x, y, threat, index, **keyed),
            smooth(model, x, y, threat, index, **keyed),
        ]
        if not spec.randomized:
            return [*found, converged(plan.attack, model, x, y, threat, index, **keyed)]
    return [*found, Measured("converged", None, None, None, "the model answers at random: its loss has no path")]
