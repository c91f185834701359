"""A baseline of the gate: packed verdicts, and what is needed to attack again in the same way."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from attacks.errors import InputError
from benchmark.evaluation.hardware import versions_text
from benchmark.gate.canaries import canary_name
from benchmark.gate.protocol import GateProtocol, Subject
from benchmark.gate.rules import Rules
from benchmark.store.packed import Packed, PackedCase, packed_case, read_packed, write_packed
from benchmark.store.selection import shown_case
from benchmark.store.verdicts import Verdicts

KIND = "baseline of the gate"
SETTINGS: Mapping[str, type | tuple[type, ...]] = {
    "attack": str,
    "seed": int,
    "examples": (int, NoneType),
    "norm": (str, NoneType),
    "epsilon": (float, int, NoneType),
    "tolerance": (float, int),
    "alpha": float,
}
"""What `Settings` has beside the suite, and of which type."""
SINCE = {"tolerance": Rules().tolerance, "alpha": Rules().alpha}
"""What baselines of before do not say."""
ANEW = "take both files from git, or write them again: gate update"
RENEW = "which says nothing of today's attack; renew it: gate update --models all"


@dataclass(frozen=True)
class Settings:
    """What a baseline is made with.

    Args:
        suite, attack: by name. seed: of the draws, the subset and the order. examples, norm, epsilon: where they are
            not the suite's own. tolerance, alpha: what a comparison tolerates, where it says nothing else.
    """

    suite: str
    attack: str
    seed: int
    examples: int | None = None
    norm: str | None = None
    epsilon: float | None = None
    tolerance: float = Rules().tolerance
    alpha: float = Rules().alpha


@dataclass(frozen=True)
class Baseline:
    """What `gate update` recorded.

    Args:
        settings: what it was made with. attack: what these meant by the attack, down to its parameters and version.
        canaries: the model that each kind of canary was made of.
        cases: verdicts by the name of the model or canary.
    """

    settings: Settings
    attack: Mapping[str, Any]
    canaries: Mapping[str, str]
    cases: Mapping[str, PackedCase]


def read_baseline(path: Path) -> Baseline:
    """What `write_baseline` wrote. Raises: InputError for a file that is missing, damaged or no baseline."""
    packed = _read(path)
    if "attack_identity" not in packed.notes:
        raise InputError(f"{path}: a baseline of an older version, {RENEW}")
    attack, canaries = packed.notes["attack_identity"], packed.notes.get("canaries")
    cases = {case.entry.model: case for case in packed.cases.values()}
    if not (isinstance(attack, dict) and isinstance(canaries, dict) and cases.keys() > set(map(canary_name, canaries))):
        raise InputError(f"{path}: expected an attack, and verdicts of models and canaries, got fewer; {ANEW}")
    return Baseline(_settings(path, packed), attack, canaries, cases)


def read_settings(path: Path) -> Settings:
    """What a baseline, also of an older version, was made with. Raises: InputError as `read_baseline`."""
    return _settings(path, _read(path))


def _read(path: Path) -> Packed:
    packed = read_packed(path)
    if packed.notes.get("kind") != KIND:
        raise InputError(f"{path}: expected a baseline of the gate, got other packed verdicts; use gate update")
    return packed


def _settings(path: Path, packed: Packed) -> Settings:
    values = {name: packed.notes.get(name, SINCE.get(name)) for name in SETTINGS}
    for name, kinds in SETTINGS.items():
        if isinstance(values[name], bool) or not isinstance(values[name], kinds):
            raise InputError(f"{path}: expected {name} in a baseline, got {values[name]!r}; {ANEW}")
    if not (0 <= values["tolerance"] <= 100 and 0 < values["alpha"] < 1):
        raise InputError(
            f"{path}: expected a tolerance from 0 to 100 and an alpha between 0 and 1 in a baseline, got "
            f"{values['tolerance']!r} and {values['alpha']!r}; {ANEW}"
        )
    return Settings(suite=packed.suite, **values)


def check_baseline(known: Baseline, protocol: GateProtocol) -> None:
    """Raise InputError where attack, threat model or images are not those that the baseline was made with."""
    recorded = next(iter(known.cases.values())).entry
    threat = protocol.suite.threat
    then = {"norm": recorded.norm, "epsilon": recorded.epsilon, "attack": known.attack}
    now = {"norm": threat.norm, "epsilon": threat.epsilon, "attack": json.loads(json.dumps(protocol.attack.identity))}
    before, after = dict(_leaves(then)), dict(_leaves(now))
    changed = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    if changed:
        first = f"{changed[0]} was {before.get(changed[0])} and is {after.get(changed[0])}"
        more = f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise InputError(f"the baseline was made with another {protocol.attack.name}: {first}{more}, {RENEW}")
    if recorded.images != protocol.split.digest:
        raise InputError(
            f"the images of suite {protocol.suite.name} are not those of the baseline; use its dataset, or renew it: "
            "gate update --models all"
        )


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every number and text of nested tables and lists, by its path."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, f"{path} {key}".strip())
        return
    yield path, value


def write_baseline(
    path: Path,
    settings: Settings,
    protocol: GateProtocol,
    subjects: Sequence[Subject],
    verdicts: Mapping[str, Verdicts],
    canaries: Mapping[str, str],
    kept: Mapping[str, PackedCase],
    detects: Sequence[Mapping[str, float | None]],
) -> None:
    """Write PATH and the packed verdicts beside it.

    Args:
        verdicts: by the subject's name, of all images.
        canaries: as in `Baseline`.
        kept: by name, what an earlier baseline has of others; a subject takes the place of the one of its name.
        detects: which drops a comparison can detect.
    """
    cases = dict(kept)
    for subject in subjects:
        described = shown_case(protocol.case(subject.spec, protocol.split), [0])
        known = verdicts[subject.spec.name]
        asked = replace(known, adversarial_class=None, queries=None, bad_queries=None)  # the gate asks nothing of them
        cases[subject.spec.name] = packed_case(described, asked, subject.flags)
    models_first = sorted(cases, key=lambda name: name in map(canary_name, canaries))
    ranked = [replace(cases[name], entry=replace(cases[name].entry, rank=(i,))) for i, name in enumerate(models_first)]
    values = {name: value for name, value in asdict(settings).items() if name != "suite"}
    notes = {
        "kind": KIND,
        **values,
        "attack_identity": protocol.attack.identity,
        "canaries": dict(canaries),
        "detects": list(detects),
        "versions": versions_text(protocol.hardware.device),
    }
    by_key = {case.entry.key: case for case in ranked}
    write_packed(Packed(protocol.suite.name, "any", by_key, notes), path.with_suffix(""))
