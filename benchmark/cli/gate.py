"""What the gate command does: options and a baseline to suite, models and canaries, and on to run and report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attacks.errors import InputError
from benchmark.cli.gate_renewal import renewals
from benchmark.cli.gate_setup import (
    canary_of,
    protocol_of,
    refuse_other_names,
    refuse_unwritable,
    screening,
    subject_of,
)
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.resolve import names_in
from benchmark.cli.resolve_hardware import bring_images
from benchmark.cli.resolve_models import choose_models, to_stderr
from benchmark.data.own_images import OwnImages
from benchmark.evaluation.model_checks import NotAboveChanceError
from benchmark.gate.baseline import Baseline, check_baseline, read_baseline
from benchmark.gate.canaries import blindness, canary_name
from benchmark.gate.protocol import GateProtocol, Subject
from benchmark.gate.question import Outcome
from benchmark.gate.report import GateReport, publish
from benchmark.gate.results import Result, new_caveats, results, sanity_failure, screened, shown_result
from benchmark.gate.rules import Rules
from benchmark.gate.run import GateRun, run_gate
from benchmark.gate.words import points
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.store import Store
from benchmark.suites.models import models_for
from benchmark.suites.suite import Suite
from model_zoo.files.atomic import sha256_of
from model_zoo.model_spec import NORMALISATION, ModelSpec
from model_zoo.registry import model_spec
from model_zoo.weights.checkpoint import silent

SCREENED = 250
"""How many images a screen attacks at most."""
SCREEN_MINUTES = 1.0


def gate(
    shared: Shared,
    baseline: Path,
    *,
    models: str | None,
    own: OwnModel,
    own_data: OwnData,
    tolerance: float | None,
    min_robust_acc: float | None,
    alpha: float | None,
    miss: float,
    budget: float | None,
    undecided: str | None,
    screen: bool,
    require_shown: bool,
    junit: Path | None,
    sarif: Path | None,
    summary: Path | None,
) -> bool:
    """Compare with the baseline. Returns: whether nothing fails the run."""
    refuse_other_names(baseline)
    for name, file in {"--junit": junit, "--sarif": sarif, "--summary": summary}.items():
        refuse_unwritable(name, file)
    failing = _failing(undecided, screen=screen)
    started = time.monotonic()
    known = read_baseline(baseline)
    recorded = known.settings
    rules = Rules(
        recorded.tolerance if tolerance is None else tolerance,
        recorded.alpha if alpha is None else alpha,
        miss,
        min_robust_acc,
    )
    brought = bring_images(own_data, shared, known.settings.suite, own)
    protocol = protocol_of(shared, known.settings, brought, skip_broken=own_data.skip_broken)
    check_baseline(known, protocol)
    specs = _tested(protocol.suite, known, models, own, shared, brought)
    renewed_by = renewals(baseline, specs, own, own_data, shared)
    shown = [shown_result(one) for one in _diagnoses(protocol.suite, specs, shared)] if require_shown else []
    if screen:
        protocol, budget = screening(protocol), budget or SCREEN_MINUTES
        rules = replace(rules, miss=0.0)  # a part of the attack passes nothing, so it looks on
        known = replace(known, canaries={})
    subjects, failed = _subjects(protocol, specs, known, shared, renewed_by)
    seconds = None if budget is None else 60 * budget
    notify = silent if shared.quiet else to_stderr
    run = run_gate(protocol, subjects, rules, budget=seconds, most=SCREENED if screen else None, notify=notify)
    answered = results(protocol, subjects, run, rules, renewed_by)
    found = [*failed, *shown, *(map(screened, answered) if screen else answered)]
    report = GateReport(
        f"robustness gate: {protocol.suite.name} against {baseline.name}",
        sorted(found, key=lambda result: result.outcome is not Outcome.FAIL),
        _note(protocol, subjects, run, rules, known, is_screen=screen),
        time.monotonic() - started,
        failing,
        screen,
    )
    publish(report, baseline, junit=junit, sarif=sarif, summary=summary)
    return report.passed


def _failing(undecided: str | None, *, screen: bool) -> list[Outcome]:
    """The outcomes that fail a run. Raises: InputError for a screen in which all would."""
    if screen and undecided == "fail":
        raise InputError("--undecided fail: a screen decides nothing but failures, so each would fail; leave it out")
    if screen or undecided == "pass":
        return [Outcome.FAIL]
    return [Outcome.FAIL, Outcome.OPEN, *([Outcome.INCONCLUSIVE] if undecided == "fail" else [])]


def _diagnoses(suite: Suite, specs: Sequence[ModelSpec], shared: Shared) -> list[Diagnosis]:
    """What was found of the models, as they are now. Raises: InputError for one that was not diagnosed."""
    store = Store(shared.results_dir / "runs")
    known = {str(sorted(one.network.items())): one for one in store.read_diagnoses(suite.name)}
    found = {spec.name: known.get(str(sorted(spec.identity.items()))) for spec in specs}
    if lacking := [name for name, one in found.items() if one is None]:
        raise InputError(
            f"--require-shown: expected a diagnosis of {', '.join(lacking)}, with the weights and the code under test, "
            f"in {store.root}, got none; run diagnose --suite {suite.name} on it with the same --results-dir"
        )
    return [replace(one, model=name) for name, one in found.items() if one is not None]


def _tested(
    suite: Suite, known: Baseline, models: str | None, given: OwnModel, shared: Shared, brought: OwnImages | None
) -> list[ModelSpec]:
    """The models under test, each known to the baseline, with other weights where the user gives some."""
    canaries = {canary_name(kind) for kind in known.canaries}
    recorded = [name for name in known.cases if name not in canaries]
    if models is None and not given.is_given:
        models = ",".join(name for name in recorded)
    items = [item.partition("=") for item in names_in(models)] if models not in (None, "all") else []
    for name, equals, file in items:
        if equals and not file:
            raise InputError(
                f"--models {name}=: expected a checkpoint after '=', got nothing; give one, or leave out '='"
            )
        if [item[0] for item in items].count(name) > 1:
            raise InputError(f"--models names {name} more than once; give it once")
    named = {name: file for name, _, file in items}
    names = ",".join(recorded if models == "all" else named) or None
    own = _own(suite, known, names_in(names) if names else [], shared)
    if own:
        raise InputError(
            f"the baseline's {own} is your own model ({known.cases[own].entry.architecture}): give it by --model "
            "PATH.py:FACTORY, or name the models to compare by --models"
        )
    specs = choose_models(suite, names, given, shared, brought)
    for spec in specs:
        if spec.name not in recorded:
            raise InputError(
                f"model {spec.name} is not in the baseline, which has {', '.join(recorded)}; "
                "record it, too, by gate update --models"
            )
    for spec in specs:
        _require_same_normalisation(spec, known)
    return [_with_weights(spec, named.get(spec.name, "")) for spec in specs]


def _require_same_normalisation(spec: ModelSpec, known: Baseline) -> None:
    """Raise InputError for a model whose images are normalised otherwise than when it was recorded."""
    recorded = known.cases[spec.name].entry.networks[spec.name].get(NORMALISATION, "")
    now = spec.identity.get(NORMALISATION, "")
    if recorded != now:
        raise InputError(
            f"model {spec.name}: expected {recorded or 'no --mean and --std'}, as in the baseline, got "
            f"{now or 'none'}; give the same, or record it anew by gate update --model"
        )


def _own(suite: Suite, known: Baseline, names: Sequence[str], shared: Shared) -> str:
    """The first of some models of the baseline that the suite does not have; "" where it has all."""
    has = models_for(suite.name, shared.checkpoint_dir)
    return next((name for name in names if name in known.cases and name not in has and "/" not in name), "")


def _with_weights(spec: ModelSpec, file: str) -> ModelSpec:
    """The same architecture with the weights of a file."""
    if not file:
        return spec
    path = Path(file).absolute()
    if not path.is_file():
        raise InputError(f"--models {spec.name}={file}: expected a checkpoint at {path}, found none; mend the path")
    return replace(spec, checkpoint=str(path), sha256=sha256_of(path))


def _subjects(
    protocol: GateProtocol,
    specs: Sequence[ModelSpec],
    known: Baseline,
    shared: Shared,
    renewed_by: Mapping[str, str],
) -> tuple[list[Subject], list[Result]]:
    """Everything that is attacked; and what is found at once, of models that are not worth attacking."""
    subjects, failed = [], []
    for spec in specs:
        try:
            subject = subject_of(protocol, spec, known.cases[spec.name], shared)
        except NotAboveChanceError as error:
            failed.append(sanity_failure(spec.name, f"the model collapsed: {error}"))
            continue
        subjects.append(subject)
        if caveat := new_caveats(subject, renewed_by[spec.name]):
            failed.append(caveat)
    for kind, name in known.canaries.items():
        before = known.cases[canary_name(kind)]
        spec = model_spec(name, protocol.suite.name, shared.checkpoint_dir)
        if spec.sha256 != before.entry.checkpoint_sha256:
            words = f"{name} has other weights than recorded, so nobody knows whether the attack is as strong as it was"
            failed.append(
                sanity_failure(
                    canary_name(kind),
                    f"{words}; keep a canary's weights, or write the baseline anew by gate update --models all",
                )
            )
            continue
        subjects.append(canary_of(protocol, kind, spec, before, shared))
    return subjects, failed


def _note(
    protocol: GateProtocol,
    subjects: Sequence[Subject],
    run: GateRun,
    rules: Rules,
    known: Baseline,
    *,
    is_screen: bool,
) -> str:
    """What the run cost, beside a full one, and what it promises."""
    spent = sum(record.passes for record in run.records.values())
    full = sum(s.before.forwards + s.before.backwards for s in subjects if s.before is not None)
    seen = max((len(record.seen) for record in run.records.values()), default=0)
    threat = protocol.suite.threat
    done = (
        f"{protocol.attack.name}, {threat.norm} {threat.epsilon:.5g}, {seen} of {len(protocol.split)} images, "
        f"{100 * spent / full if full else 0:.0f}% of the passes of a full run. "
        f"With probability {rules.alpha:g} at most a run fails a model that did not become worse, and with as much one "
        f"that lost {points(rules.tolerance)} or less of all images; p fail is adjusted for all questions of the run."
    )
    if is_screen:
        return (
            f"{done} {protocol.attack.name} is a part of the attack of the baseline, and breaks no more than it does."
        )
    return (
        f"{done} With probability {rules.miss:g} at most a question is passed before the last image that all "
        "images would fail; that is p pass."
        + ("" if any(s.is_canary for s in subjects) else " No canary: nobody knows whether the attack became weaker.")
        + _blindness(protocol, known)
    )


def _blindness(protocol: GateProtocol, known: Baseline) -> str:
    """What the baseline's masked canary says of the attack; "" where there is none, or nothing to say."""
    masked = known.cases.get(canary_name("masked"))
    if masked is None:
        return ""
    blind = blindness(protocol.attack.name, masked.robust_any, masked.prediction == masked.label)
    return f" Of the baseline: {blind} when the baseline is recorded anew." if blind else ""
