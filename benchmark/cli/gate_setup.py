"""What the gate attacks, and with what: a baseline's settings to suite, attack and images, specs to models."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from attacks.errors import InputError
from attacks.spec import AttackSpec, Ensemble, ThirdParty
from benchmark.cli.options import Shared
from benchmark.cli.resolve import choose_attacks, choose_suite
from benchmark.cli.resolve_hardware import choose_hardware, choose_images, tuned
from benchmark.data.own_images import OwnImages
from benchmark.evaluation.model_checks import check_identity, check_images, check_on_fitting_batches
from benchmark.evaluation.search_copy import search_copy
from benchmark.gate.baseline import Settings
from benchmark.gate.canaries import STRONGER, canary_model, canary_spec
from benchmark.gate.protocol import GateProtocol, Subject
from benchmark.store.packed import PackedCase
from benchmark.suites.registry import SUITES
from benchmark.sweep.prepare import load_on
from model_zoo.model_spec import ModelSpec

DEFAULT_ATTACK = STRONGER[0]


def refuse_other_names(baseline: Path) -> None:
    """Raise InputError for a baseline whose name does not end as that of one does."""
    if baseline.suffix != ".json":
        raise InputError(f"--baseline takes a name ending in .json (the packed verdicts lie beside it), got {baseline}")


def refuse_unwritable(option: str, path: Path | None) -> None:
    """Raise InputError for a file that could not be written in the end, before anything is computed."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"expected a file to write in a folder that exists, got {path}; mend {option}")


def protocol_of(
    shared: Shared, settings: Settings, brought: OwnImages | None = None, *, skip_broken: int | None = None
) -> GateProtocol:
    """Attack, images and hardware.

    Args:
        brought: the user's own images, which have a suite of their own where the settings name no other.

    Raises: InputError for settings that cannot be had here.
    """
    is_own = settings.suite not in SUITES
    if is_own and brought is None:
        raise InputError(f"the baseline is of suite {settings.suite}, images that you bring along; name them by --data")
    own = {"brought": settings.suite} if is_own else {"brought": None if brought is None else brought.name}
    name = None if is_own else settings.suite
    chosen = choose_suite(name, None, settings.norm, settings.epsilon, settings.examples, **own)
    (spec,) = choose_attacks(chosen, settings.attack)
    _refuse_third_party(spec)
    shared = replace(shared, seed=settings.seed)
    split = choose_images(chosen, shared, brought, skip_broken=skip_broken)
    check_images(split)
    hardware = tuned(choose_hardware(shared), chosen, split, shared)
    if hardware.device.type != "cpu":
        if hardware.workers > 1:
            print("note: on a GPU the gate runs in one process: --workers is left aside", file=sys.stderr)
        hardware = replace(hardware, workers=1)  # a worker on a GPU loads models anew, and none is a canary
    folder = shared.results_dir / "runs" / "gate"
    return GateProtocol(chosen, spec, split, settings.seed, hardware, folder)


def _refuse_third_party(attack: AttackSpec) -> None:
    members = attack.method.members if isinstance(attack.method, Ensemble) else [attack]
    if any(isinstance(member.method, ThirdParty) for member in members):
        raise InputError(
            f"attack {attack.name}: third-party attacks draw by place in the batch, so their verdicts on a part of the "
            f"images are others; use one of this project, for instance {DEFAULT_ATTACK}"
        )


def screening(protocol: GateProtocol) -> GateProtocol:
    """The same by the first part of the attack alone, which breaks nothing that the whole does not break."""
    method = protocol.attack.method
    if not isinstance(method, Ensemble):
        return protocol
    return replace(protocol, attack=[*method.screening, *method.members][0])


def subject_of(protocol: GateProtocol, spec: ModelSpec, before: PackedCase | None, shared: Shared) -> Subject:
    """A model that the gate attacks, loaded and checked; `before` is what the baseline has of it."""
    model = load_on(protocol.hardware, spec, protocol.split, shared.checkpoint_dir)
    checked, _ = check_on_fitting_batches(
        spec.name,
        model,
        protocol.split,
        protocol.hardware,
        needs_gradients=protocol.attack.needs_gradients,
        is_random=spec.randomized,
        rejects=spec.rejects,
    )
    check_identity(spec, checked.flags)
    searched = search_copy(spec, model, protocol.split, protocol.hardware)
    return Subject(spec, model, searched, checked.prediction, checked.flags, before)


def canary_of(protocol: GateProtocol, kind: str, spec: ModelSpec, before: PackedCase | None, shared: Shared) -> Subject:
    """A canary of some kind, made of a model."""
    plain = subject_of(protocol, spec, before, shared)
    model, searched = canary_model(kind, plain.model), canary_model(kind, plain.searched)
    return replace(plain, spec=canary_spec(kind, spec), model=model, searched=searched, is_canary=True)
