"""Attacks on models under test: known examples first, then what no earlier run of the same code has computed."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.registry import AttackSpec
from benchmark.case import EvalCase, case_key
from benchmark.data import Split, digest, take
from benchmark.examples import Examples, broken_by
from benchmark.hardware import Hardware
from benchmark.packed import PackedCase
from benchmark.store import Store
from benchmark.suite import Suite
from benchmark.sweep import VERSIONED, Work, sweep
from benchmark.verdicts import Bools, Verdicts
from model_zoo.registry import ModelSpec

CODE = Path(__file__).resolve().parents[1]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Bench:
    """What all models are attacked with: attack, threat model and images (with their digest), on this hardware."""

    suite: Suite
    attack: AttackSpec
    split: Split
    images: str
    seed: int
    hardware: Hardware

    def case(self, spec: ModelSpec, images: Split) -> EvalCase:
        """The attack on some of the images."""
        suite, where = self.suite, self.images if images is self.split else digest(images)
        return EvalCase(suite.name, suite.dataset, where, len(images), spec, spec, self.attack, suite.threat, self.seed)


@dataclass(frozen=True)
class Subject:
    """A model under test, or a canary.

    Args:
        model: on the device. searched: its copy for the attack. prediction: (N,) its classes of the clean images.
        flags: its caveats.
        before: the baseline's verdicts; None where a baseline is being written.
        is_canary: its attack must be as strong as it was, and never comes from a cache.
    """

    spec: ModelSpec
    model: nn.Module
    searched: nn.Module
    prediction: Tensor
    flags: Sequence[str]
    before: PackedCase | None = None
    is_canary: bool = False


def attack_all(bench: Bench, subjects: Sequence[Subject], folder: Path, *, quiet: bool) -> dict[str, Verdicts]:
    """The verdicts of every subject on all images, for a baseline; what the store has is not computed again."""
    rows = dict.fromkeys((subject.spec.name for subject in subjects), np.arange(len(bench.split)))
    attacked = _attack(bench, subjects, rows, _trusted(bench, folder), Examples(folder / "examples"), quiet=quiet)
    return {name: verdicts for name, (verdicts, _) in attacked.items()}


def attack_batch(bench: Bench, subjects: Sequence[Subject], rows: Rows, folder: Path) -> dict[str, tuple[Bools, float]]:
    """Attack some images of every subject.

    Args:
        rows: ascending positions in the split.
        folder: where earlier runs left verdicts and examples. Canaries know neither: they are for testing the attack.

    Returns: for each subject (len(rows),) bool, robust; and the forward and backward passes that were spent.
    """
    store, examples = _trusted(bench, folder), Examples(folder / "examples")
    images, results = take(bench.split, rows), {}
    tested = [subject for subject in subjects if not subject.is_canary]
    for subject in tested:
        robust, passes = np.ones(len(rows), np.bool_), 0.0
        case = bench.case(subject.spec, images)
        if store.absent(case_key(case), case.n) and subject.before is not None:
            known = examples.of(str(subject.before.entry["key"]))
            broken, spent = broken_by(known, subject.model, images, bench.suite.threat, bench.hardware)
            robust, passes = ~broken.numpy(), float(spent.sum())
        results[subject.spec.name] = robust, passes
    left = {name: rows[robust] for name, (robust, _) in results.items()}
    for name, (verdicts, spent_on) in _attack(bench, tested, left, store, examples).items():
        robust, passes = results[name]
        robust[robust] = verdicts.robust_any
        results[name] = robust, passes + spent_on
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".canaries-") as fresh:
        canaries = [subject for subject in subjects if subject.is_canary]
        all_rows = {subject.spec.name: rows for subject in canaries}
        for name, (verdicts, spent_on) in _attack(bench, canaries, all_rows, Store(Path(fresh)), None).items():
            results[name] = verdicts.robust_any, spent_on
    return results


def _attack(
    bench: Bench,
    subjects: Sequence[Subject],
    rows: Mapping[str, Rows],
    store: Store,
    examples: Examples | None,
    *,
    quiet: bool = True,
) -> dict[str, tuple[Verdicts, float]]:
    """The verdicts of each subject on its own rows, those that the store lacks computed; and the passes spent on it."""
    cases = {
        subject.spec.name: bench.case(subject.spec, take(bench.split, rows[subject.spec.name]))
        for subject in subjects
        if len(rows[subject.spec.name])
    }
    if not cases:
        return {}
    whole = {subject.spec.name: case_key(bench.case(subject.spec, bench.split)) for subject in subjects}
    known = {name for name, case in cases.items() if not store.absent(case_key(case), case.n)}

    def keep(case: EvalCase, images: Split, points: Tensor) -> None:
        if examples is not None:
            examples.keep(whole[case.model.name], images.index, points)

    work = Work(
        list({case_key(case): case for case in cases.values()}.values()),
        bench.split,
        {case.images: rows[name] for name, case in cases.items()},
        {subject.spec.name: subject.model for subject in subjects},
        {subject.spec.name: subject.searched for subject in subjects},
        {subject.spec.name: subject.prediction for subject in subjects},
        keep=keep,
    )
    store.open()
    sweep(work, store, bench.hardware, quiet=quiet)
    results = {}
    for name, case in cases.items():
        stored = store.read(case_key(case), case.n)
        assert stored is not None
        passes = stored[0].forwards.sum() + stored[0].backwards.sum()
        results[name] = stored[0], 0.0 if name in known else float(passes)
    return results


def _trusted(bench: Bench, folder: Path) -> Store:
    """Verdicts of the same code, libraries and kind of hardware: others' may be of another attack by the same name."""
    sha = hashlib.sha256()
    for package in ("attacks", "model_zoo", "benchmark"):
        for path in sorted((CODE / package).rglob("*.py")):
            sha.update(path.relative_to(CODE).as_posix().encode() + path.read_bytes())
    versions = [f"{name}={version(name)}" for name in VERSIONED]
    sha.update(" ".join([*versions, bench.hardware.device.type, str(bench.hardware.precision)]).encode())
    return Store(folder / sha.hexdigest()[:16])
