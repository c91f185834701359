"""What the gate command does: options to suite, models and canaries, and on to baseline, run and report."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attacks.errors import InputError
from attacks.registry import AttackSpec, Ensemble, Proposer
from benchmark.baseline import Baseline, read_baseline, write_baseline
from benchmark.bench import Bench, Subject, attack_all
from benchmark.canaries import canary_model, canary_name, canary_spec, choose_canaries
from benchmark.checks import NotAboveChanceError, check_images, check_model
from benchmark.choices import (
    choose_attacks,
    choose_hardware,
    choose_images,
    choose_models,
    choose_suite,
    names_in,
    tuned,
)
from benchmark.cli import Shared
from benchmark.data import digest
from benchmark.findings import Finding, findings, new_caveats, sanity_failure
from benchmark.gate import Course, run_gate
from benchmark.gate_report import Report, publish
from benchmark.gate_rules import Rules
from benchmark.packed import PackedCase
from benchmark.search_model import search_model
from benchmark.suite import Suite
from benchmark.sweep import load_on
from model_zoo.checkpoint import sha256_of
from model_zoo.registry import ModelSpec, model_spec

DEFAULT_ATTACK = "autoattack-brief"
OF_UPDATE = ("suite", "attack", "examples", "norm", "epsilon", "canaries")
"""Options that a baseline records, so that later runs cannot differ in them."""


def gate(
    shared: Shared,
    *,
    baseline: Path,
    update: bool,
    models: str | None,
    model: str | None,
    checkpoint: Path | None,
    tolerance: float,
    min_robust_acc: float | None,
    alpha: float,
    miss: float,
    budget: float | None,
    junit: Path | None,
    summary: Path | None,
    suite: str | None,
    attack: str | None,
    examples: int | None,
    norm: str | None,
    epsilon: float | None,
    canaries: str | None,
) -> bool:
    """Compare with the baseline, or write it. Returns: whether the gate passed."""
    if baseline.suffix != ".json":
        raise InputError(f"--baseline takes a name ending in .json (the packed verdicts lie beside it), got {baseline}")
    given = {"suite": suite, "attack": attack, "examples": examples, "norm": norm, "epsilon": epsilon}
    if update:
        _update(shared, baseline, models, model, checkpoint, canaries, **given)  # type: ignore[arg-type]
        return True
    refused = [f"--{name}" for name, value in {**given, "canaries": canaries}.items() if value is not None]
    if refused:
        raise InputError(f"{', '.join(refused)}: the baseline says so; change it by gate --update")
    for path in (junit, summary):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise InputError(f"expected a file in a folder that exists, got {path}; mend --junit or --summary")
    started = time.monotonic()
    known = read_baseline(baseline)
    rules = Rules(tolerance, alpha, miss, min_robust_acc)
    bench = _bench(shared, known.suite, known.attack, known.examples, known.norm, known.epsilon, known.seed)
    specs = _tested(bench.suite, known, models, model, checkpoint, shared)
    subjects, failed = _subjects(bench, specs, known, shared)
    seconds = None if budget is None else 60 * budget
    folder = shared.results_dir / "runs" / "gate"
    tell = _silent if shared.quiet else _to_stderr
    course = run_gate(bench, subjects, rules, folder, budget=seconds, tell=tell)
    found = [*failed, *findings(bench, subjects, course, rules)]
    report = Report(
        f"robustness gate: {bench.suite.name} against {baseline.name}",
        sorted(found, key=lambda finding: finding.outcome != "fail"),
        _note(bench, subjects, course, rules),
        time.monotonic() - started,
    )
    publish(report, junit=junit, summary=summary)
    return report.passed


def _update(
    shared: Shared,
    path: Path,
    models: str | None,
    model: str | None,
    checkpoint: Path | None,
    canaries: str | None,
    *,
    suite: str | None,
    attack: str | None,
    examples: int | None,
    norm: str | None,
    epsilon: float | None,
) -> None:
    """Attack all images of all models and canaries, and write the baseline."""
    bench = _bench(shared, suite or "digits", attack or DEFAULT_ATTACK, examples, norm, epsilon, shared.seed)
    specs = choose_models(bench.suite, models, model, checkpoint, shared)
    registered = choose_models(bench.suite, "all", None, None, shared) if canaries != "none" else []
    of_kind = choose_canaries(canaries, registered)
    subjects = [_subject(bench, spec, None, shared) for spec in specs]
    subjects += [_canary(bench, kind, spec, None, shared) for kind, spec in of_kind.items()]
    verdicts = attack_all(bench, subjects, shared.results_dir / "runs" / "gate", quiet=shared.quiet)
    names = {kind: spec.name for kind, spec in of_kind.items()}
    write_baseline(path, bench, subjects, verdicts, names, examples=examples, norm=norm, epsilon=epsilon)
    print(f"{path}: {len(specs)} models, {len(of_kind)} canaries, {bench.attack.name} on {len(bench.split)} images")
    masked = verdicts.get(canary_name("masked"))
    if masked is not None and masked.robust_any.mean() > 0.5 * masked.correct.mean():
        print(
            f"note: {bench.attack.name} leaves {100 * masked.robust_any.mean():.1f}% of the gradient-masked canary "
            f"standing, which is undefended: a masked model would pass this gate; use --attack {DEFAULT_ATTACK}",
            file=sys.stderr,
        )


def _bench(
    shared: Shared,
    suite: str,
    attack: str,
    examples: int | None,
    norm: str | None,
    epsilon: float | None,
    seed: int,
) -> Bench:
    chosen = choose_suite(suite, None, norm, epsilon, examples)
    (spec,) = choose_attacks(chosen, attack)
    _refuse_third_party(spec)
    if shared.executor != "local":
        raise InputError(
            f"--executor {shared.executor} is for running the benchmark; the gate runs on this machine alone"
        )
    shared = replace(shared, seed=seed)
    split = choose_images(chosen, shared)
    check_images(split)
    hardware = tuned(choose_hardware(shared), split, shared)
    if hardware.device.type != "cpu":
        hardware = replace(hardware, workers=1)  # what a worker on a GPU finds does not come back
    return Bench(chosen, spec, split, digest(split), seed, hardware)


def _refuse_third_party(attack: AttackSpec) -> None:
    members = attack.method.members if isinstance(attack.method, Ensemble) else [attack]
    if any(isinstance(member.method, Proposer) for member in members):
        raise InputError(
            f"attack {attack.name}: third-party attacks draw by place in the batch, so their verdicts on a part of the "
            f"images are others; use one of this project, for instance {DEFAULT_ATTACK}"
        )


def _tested(
    suite: Suite, known: Baseline, models: str | None, model: str | None, checkpoint: Path | None, shared: Shared
) -> list[ModelSpec]:
    """The models under test, each known to the baseline, with other weights where the user gives some."""
    canaries = {canary_name(kind) for kind in known.canaries}
    recorded = [name for name in known.cases if name not in canaries]
    if models is None and model is None:
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
    specs = choose_models(suite, names, model, checkpoint, shared)
    for spec in specs:
        if spec.name not in recorded:
            raise InputError(
                f"model {spec.name} is not in the baseline, which has {', '.join(recorded)}; "
                "record all of them anew by gate --update --models"
            )
    return [_with_weights(spec, named.get(spec.name, "")) for spec in specs]


def _with_weights(spec: ModelSpec, file: str) -> ModelSpec:
    """The same architecture with the weights of a file."""
    if not file:
        return spec
    path = Path(file).absolute()
    if not path.is_file():
        raise InputError(f"--models {spec.name}={file}: expected a checkpoint at {path}, found none; mend the path")
    return replace(spec, checkpoint=str(path), sha256=sha256_of(path))


def _subjects(
    bench: Bench, specs: Sequence[ModelSpec], known: Baseline, shared: Shared
) -> tuple[list[Subject], list[Finding]]:
    """Everything that is attacked; and what is found at once, of models that are not worth attacking."""
    recorded = next(iter(known.cases.values())).entry["images"]
    if recorded != bench.images:
        raise InputError(
            f"the images of suite {bench.suite.name} are not those of the baseline; use its data set, or gate --update"
        )
    subjects, failed = [], []
    for spec in specs:
        try:
            subject = _subject(bench, spec, known.cases[spec.name], shared)
        except NotAboveChanceError as error:
            failed.append(sanity_failure(spec.name, f"the model collapsed: {error}"))
            continue
        subjects.append(subject)
        if caveat := new_caveats(subject):
            failed.append(caveat)
    for kind, name in known.canaries.items():
        before = known.cases[canary_name(kind)]
        spec = model_spec(name, bench.suite.name, shared.checkpoint_dir)
        if spec.sha256 != before.entry["checkpoint_sha256"]:
            words = f"{name} has other weights than recorded, so nobody knows whether the attack is as strong as it was"
            failed.append(sanity_failure(canary_name(kind), f"{words}; keep a canary's weights, or gate --update"))
            continue
        subjects.append(_canary(bench, kind, spec, before, shared))
    return subjects, failed


def _subject(bench: Bench, spec: ModelSpec, before: PackedCase | None, shared: Shared) -> Subject:
    model = load_on(bench.hardware, spec, bench.split, shared.checkpoint_dir)
    checked = check_model(spec.name, model, bench.split, bench.hardware)
    example = bench.split.x[:1].to(bench.hardware.device)
    searched = search_model(model, example, bench.hardware.precision)
    return Subject(spec, model, searched, checked.prediction, checked.flags, before)


def _canary(bench: Bench, kind: str, spec: ModelSpec, before: PackedCase | None, shared: Shared) -> Subject:
    plain = _subject(bench, spec, before, shared)
    model, searched = canary_model(kind, plain.model), canary_model(kind, plain.searched)
    return replace(plain, spec=canary_spec(kind, spec), model=model, searched=searched, is_canary=True)


def _note(bench: Bench, subjects: Sequence[Subject], course: Course, rules: Rules) -> str:
    """What the run cost, beside a full one, and what it promises."""
    spent = sum(record.passes for record in course.records.values())
    full = sum(s.before.forwards + s.before.backwards for s in subjects if s.before is not None)
    seen = max((len(record.seen) for record in course.records.values()), default=0)
    threat = bench.suite.threat
    return (
        f"{bench.attack.name}, {threat.norm} {threat.epsilon:.5g}, {seen} of {len(bench.split)} images, "
        f"{100 * spent / full if full else 0:.0f}% of the passes of a full run. A drop within {rules.tolerance:g} "
        f"points is tolerated. A run in which nothing became worse fails with probability {rules.alpha:g} at most; "
        f"a question is passed too early with probability {rules.miss:g} at most."
        + ("" if any(s.is_canary for s in subjects) else " No canary: nobody knows whether the attack became weaker.")
    )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _silent(_: str) -> None:
    pass
