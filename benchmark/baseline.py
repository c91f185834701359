"""A baseline of the gate: packed verdicts, and what is needed to attack again in the same way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from attacks.errors import InputError
from benchmark.bench import Bench, Subject
from benchmark.packed import Packed, PackedCase, packed_case, read_packed, write_packed
from benchmark.score import entry
from benchmark.sweep import VERSIONED
from benchmark.verdicts import Verdicts

KIND = "baseline of the gate"


@dataclass(frozen=True)
class Baseline:
    """What `gate --update` recorded.

    Args:
        suite, attack, seed: by name. examples, norm, epsilon: where they are not the suite's own.
        canaries: the model that each kind of canary was made of.
        cases: verdicts by the name of the model or canary.
    """

    suite: str
    attack: str
    seed: int
    examples: int | None
    norm: str | None
    epsilon: float | None
    canaries: Mapping[str, str]
    cases: Mapping[str, PackedCase]


def read_baseline(path: Path) -> Baseline:
    """What `write_baseline` wrote. Raises: InputError for a file that is missing, damaged or no baseline."""
    packed = read_packed(path)
    notes = dict(packed.notes)
    if notes.pop("kind", None) != KIND:
        raise InputError(f"{path}: expected a baseline of the gate, got other packed verdicts; use gate --update")
    del notes["versions"]
    return Baseline(suite=packed.suite, cases={str(c.entry["model"]): c for c in packed.cases.values()}, **notes)


def write_baseline(
    path: Path,
    bench: Bench,
    subjects: Sequence[Subject],
    verdicts: Mapping[str, Verdicts],
    canaries: Mapping[str, str],
    *,
    examples: int | None,
    norm: str | None,
    epsilon: float | None,
) -> None:
    """Write PATH and the packed verdicts beside it.

    Args:
        verdicts: by the subject's name, of all images.
        canaries, examples, norm, epsilon: as in `Baseline`.
    """
    cases = {}
    for rank, subject in enumerate(subjects):
        described = entry(bench.case(subject.spec, bench.split), [rank])
        cases[described["key"]] = packed_case(described, verdicts[subject.spec.name], subject.flags, {})
    notes = {
        "kind": KIND,
        "attack": bench.attack.name,
        "seed": bench.seed,
        "examples": examples,
        "norm": norm,
        "epsilon": epsilon,
        "canaries": dict(canaries),
        "versions": " ".join(f"{name}={version(name)}" for name in VERSIONED),
    }
    write_packed(Packed(bench.suite.name, "any", cases, notes), path.with_suffix(""), with_timing=False)
