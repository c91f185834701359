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
from benchmark.cli.options import OwnModel, Shared
from benchmark.cli.resolve_models import choose_models
from benchmark.gate.baseline import Baseline, Settings, check_baseline, read_baseline, read_settings, write_baseline
from benchmark.gate.canaries import canary_name, choose_canaries
from benchmark.gate.protocol import GateProtocol, Subject, attack_all
from benchmark.store.verdicts import Verdicts
from model_zoo.model_spec import ModelSpec


def update_baseline(
    shared: Shared, path: Path, *, models: str | None, own: OwnModel, canaries: str | None, **given: Any
) -> None:
    """Write a baseline; where it is there and some models are named, its other models and its canaries stay in it.

    Args:
        given: by name of `Settings`, what the user says; None for what the baseline that is there was made with.
    """
    refuse_other_names(path)
    refuse_unwritable("--baseline", path)
    if "=" in (models or ""):
        raise InputError(
            f"--models {models}: NAME=FILE is for a comparison; to record such weights leave out '=FILE', and "
            "put the checkpoint and its card into --checkpoint-dir"
        )
    are_all = models == "all" or (models is None and not own.is_given)
    known = read_baseline(path) if path.exists() and not are_all else None
    settings = _settings(path, given)
    if known is not None and (settings != known.settings or canaries is not None):
        options = [f"--{name}" for name, value in {**given, "canaries": canaries}.items() if value is not None]
        raise InputError(
            f"{', '.join(options)}: {path} has other models and canaries, which stay as they are; leave that out, or "
            "write all of it anew by --models all"
        )
    protocol = protocol_of(shared, settings)
    if known is not None:
        check_baseline(known, protocol)
    specs = choose_models(protocol.suite, models, own, shared)
    of_kind: Mapping[str, ModelSpec] = {}
    if known is None and canaries != "none":
        among = specs if are_all else choose_models(protocol.suite, "all", OwnModel(), shared)
        of_kind = choose_canaries(canaries, among)
    subjects = [subject_of(protocol, spec, None, shared) for spec in specs]
    subjects += [canary_of(protocol, kind, spec, None, shared) for kind, spec in of_kind.items()]
    _refuse_twins(subjects, known)
    verdicts = attack_all(protocol, subjects, quiet=shared.quiet)
    names = known.canaries if known is not None else {kind: spec.name for kind, spec in of_kind.items()}
    write_baseline(path, settings, protocol, subjects, verdicts, names, known.cases if known is not None else {})
    stay = len(known.cases) - len(names) - sum(spec.name in known.cases for spec in specs) if known is not None else 0
    print(
        f"{path}: {len(specs)} models, {len(of_kind)} canaries, {protocol.attack.name} on {len(protocol.split)} images"
        + (f"; {stay} other models and {len(names)} canaries stay as they were" if known is not None else "")
    )
    _warn_of_blindness(protocol, verdicts)


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


def _warn_of_blindness(protocol: GateProtocol, verdicts: Mapping[str, Verdicts]) -> None:
    masked = verdicts.get(canary_name("masked"))
    if masked is not None and masked.robust_any.mean() > 0.5 * masked.correct.mean():
        stronger = "autoattack" if protocol.attack.name == DEFAULT_ATTACK else DEFAULT_ATTACK
        print(
            f"note: {protocol.attack.name} leaves {100 * masked.robust_any.mean():.1f}% of the gradient-masked canary "
            f"standing, which is undefended: a masked model would pass this gate; use --attack {stronger}",
            file=sys.stderr,
        )
