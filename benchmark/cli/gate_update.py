"""What `gate update` does: attack all images of models and canaries, and write a baseline, or a part of it anew."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attacks.errors import InputError
from benchmark.cli.gate_setup import (
    DEFAULT_ATTACK,
    canary_of,
    protocol_of,
    refuse_other_names,
    refuse_unwritable,
    subject_of,
)
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.cli.resolve import choose_suite
from benchmark.cli.resolve_hardware import bring_images
from benchmark.cli.resolve_models import choose_models
from benchmark.gate.baseline import Baseline, Settings, check_baseline, read_baseline, read_settings, write_baseline
from benchmark.gate.canaries import blindness, canary_name, choose_canaries
from benchmark.gate.power import RETRAINED, as_record, detectable, in_words
from benchmark.gate.protocol import Subject, attack_all
from benchmark.gate.rules import Rules
from benchmark.gate.words import counted
from benchmark.suites.models import models_for
from benchmark.suites.registry import own_suite_name
from benchmark.suites.suite import Suite
from model_zoo.load import find_checkpoint, identified
from model_zoo.model_spec import ModelSpec


def update_baseline(
    shared: Shared,
    path: Path,
    *,
    models: str | None,
    own: OwnModel,
    own_data: OwnData,
    dataset: str | None,
    canaries: str | None,
    **given: Any,
) -> None:
    """Write a baseline; where it is there and some models are named, its other models and its canaries stay in it.

    Args:
        given: by name of `Settings`, what the user says; None for what the baseline that is there was made with.
    """
    if dataset is not None:
        given["suite"] = choose_suite(given["suite"], dataset, None, None, None).name
    refuse_other_names(path)
    recorded = read_settings(path).suite if path.exists() and given["suite"] is None else None
    brought = bring_images(own_data, shared, given["suite"] or recorded, own)
    if brought is not None and given["suite"] is None and recorded is None:
        given["suite"] = own_suite_name(brought.name)
    refuse_unwritable("--baseline", path)
    if "=" in (models or ""):
        raise InputError(
            f"--models {models}: NAME=FILE is for a comparison; to record such weights leave out '=FILE', and "
            "put the checkpoint and its card into --checkpoint-dir"
        )
    are_all = models == "all" or (models is None and not own.is_given)
    known = read_baseline(path) if path.exists() and not are_all else None
    settings = _settings(path, given)
    if known is not None and (_of_verdicts(settings) != _of_verdicts(known.settings) or canaries is not None):
        options = [f"--{name}" for name, value in {**given, "canaries": canaries}.items() if value is not None]
        raise InputError(
            f"{', '.join(options)}: {path} has other models and canaries, which stay as they are; leave that out, or "
            "write all of it anew by --models all"
        )
    protocol = protocol_of(shared, settings, brought, skip_broken=own_data.skip_broken)
    if known is not None:
        check_baseline(known, protocol)
    specs = choose_models(protocol.suite, models, own, shared, brought)
    of_kind: Mapping[str, ModelSpec] = {}
    if known is None and canaries != "none":
        candidates = _candidates(protocol.suite, canaries, shared)
        if candidates or canaries is not None or brought is None:
            of_kind = choose_canaries(canaries, candidates)
    subjects = [subject_of(protocol, spec, None, shared) for spec in specs]
    subjects += [canary_of(protocol, kind, spec, None, shared) for kind, spec in of_kind.items()]
    _refuse_twins(subjects, known)
    verdicts = attack_all(protocol, subjects, quiet=shared.quiet)
    names = known.canaries if known is not None else {kind: spec.name for kind, spec in of_kind.items()}
    kept = known.cases if known is not None else {}
    n = len(protocol.split)
    detects, drops = _detected(n, settings, questions=len({*kept, *verdicts}))
    write_baseline(path, settings, protocol, subjects, verdicts, names, kept, detects)
    recorded = f"{counted(len(specs), 'model')}, {counted(len(of_kind), 'canary')}"
    stay = len(kept) - len(names) - sum(spec.name in kept for spec in specs)
    print(
        f"{path}: {recorded}, {protocol.attack.name} on {counted(n, 'image')}"
        + (f"; {counted(stay, 'other model')} and {counted(len(names), 'canary')} stay as they were" if kept else "")
    )
    print(drops)
    masked = verdicts.get(canary_name("masked"))
    if masked is not None and (blind := blindness(protocol.attack.name, masked.robust_any, masked.correct)):
        print(f"note: {blind}", file=sys.stderr)


def _detected(n: int, settings: Settings, *, questions: int) -> tuple[list[dict[str, float | None]], str]:
    """Which drops a comparison on n images detects, for the baseline and for people."""
    rules = Rules(settings.tolerance, settings.alpha)
    drops = {churn: detectable(n, rules, questions=questions, churn=churn) for churn in (0.0, RETRAINED)}
    asked = f"of {counted(questions, 'question')}, at tolerance {rules.tolerance:g} and alpha {rules.alpha:g}"
    lines = [f"- {in_words(found, churn)}" for churn, found in drops.items()]
    records = [as_record(found, questions=questions, churn=churn) for churn, found in drops.items()]
    return records, "\n".join([f"Drops that a comparison detects, {asked}:", *lines])


def _of_verdicts(settings: Settings) -> Settings:
    """What of the settings determines verdicts: the rules do not."""
    return replace(settings, tolerance=0.0, alpha=0.0)


def _candidates(suite: Suite, names: str | None, shared: Shared) -> list[ModelSpec]:
    """The models that canaries are chosen from: those named, else those whose checkpoints are here."""
    known = models_for(suite.name, shared.checkpoint_dir)
    named = [name.strip() for name in (names or "").split(",")]
    if len(named) == 2 and known.keys() >= set(named):
        return choose_models(suite, names, OwnModel(), shared)
    return [identified(spec, shared.checkpoint_dir) for spec in known.values() if _is_here(spec, shared)]


def _is_here(spec: ModelSpec, shared: Shared) -> bool:
    try:
        find_checkpoint(spec, shared.checkpoint_dir)
    except InputError:
        return False
    return True


def _settings(path: Path, given: Mapping[str, Any]) -> Settings:
    """As the user says, else as the baseline that is there was made, else digits by the default attack."""
    said = {name: value for name, value in given.items() if value is not None}
    settings = Settings("digits", DEFAULT_ATTACK, 0)
    if path.exists():
        try:
            settings = read_settings(path)
        except InputError as error:
            print(f"note: written anew, by the default settings where none are given: {error}", file=sys.stderr)
    if said.get("suite", settings.suite) != settings.suite:
        settings = Settings(said["suite"], DEFAULT_ATTACK, 0)
    return replace(settings, **said)


def _refuse_twins(subjects: Sequence[Subject], known: Baseline | None) -> None:
    """Raise InputError for two names of one network with one set of weights: their verdicts are one case."""
    names = {subject.spec.name for subject in subjects}
    others = {} if known is None else {name: case.entry for name, case in known.cases.items() if name not in names}
    seen = {(entry.checkpoint_sha256, entry.architecture): name for name, entry in others.items()}
    for subject in subjects:
        weights = subject.spec.sha256, subject.spec.network
        twin = seen.setdefault(weights, subject.spec.name)
        if twin != subject.spec.name:
            raise InputError(f"{twin} and {subject.spec.name} are one network with the same weights; leave one out")
