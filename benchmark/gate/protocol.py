"""Attacks on models under test: what no earlier run of the same code has computed, known examples first if wanted."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.spec import AttackSpec
from benchmark.data.split import Split, digest, take
from benchmark.evaluation.hardware import VERSIONED, Hardware
from benchmark.gate.examples import Examples, broken_by
from benchmark.stats.shares import Bools
from benchmark.store.packed import PackedCase
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key, drawn
from benchmark.suites.suite import Suite
from benchmark.sweep.prepare import Work
from benchmark.sweep.sweep import sweep
from model_zoo.model_spec import ModelSpec

CODE = Path(__file__).resolve().parents[2]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Bench:
    """What all models are attacked with: attack, threat model and images (with their digest), on this hardware.

    Args:
        folder: where earlier runs left verdicts and examples, and this one leaves its own.
        warm_start: whether points that break images are kept, and those of the baseline's model tried first on the new
            one.
    """

    suite: Suite
    attack: AttackSpec
    split: Split
    images: str
    seed: int
    hardware: Hardware
    folder: Path
    warm_start: bool = False

    @property
    def examples(self) -> Examples:
        """Points that broke images in earlier runs."""
        return Examples(self.folder / "examples")

    def case(self, spec: ModelSpec, images: Split) -> EvalCase:
        """The attack on some of the images."""
        suite, where = self.suite, self.images if images is self.split else digest(images)
        return drawn(
            EvalCase(suite.name, suite.dataset, where, len(images), spec, spec, self.attack, suite.threat, self.seed)
        )


@dataclass(frozen=True)
class Subject:
    """A model under test, or a canary.

    Args:
        model: on the device. searched: its copy for the attack. prediction: (N,) its classes of the clean images.
        flags: its caveats.
        before: the baseline's verdicts; None where a baseline is being written.
        is_canary: its attack must be as strong as it was.
    """

    spec: ModelSpec
    model: nn.Module
    searched: nn.Module
    prediction: Tensor
    flags: Sequence[str]
    before: PackedCase | None = None
    is_canary: bool = False

    @property
    def is_cached(self) -> bool:
        """Whether verdicts of earlier runs count: a canary tests today's attack, others' code may change unseen."""
        return not self.is_canary and not self.spec.code


def attack_all(bench: Bench, subjects: Sequence[Subject], *, quiet: bool) -> dict[str, Verdicts]:
    """The verdicts of every subject on all images, for a baseline."""
    rows = dict.fromkeys((subject.spec.name for subject in subjects), np.arange(len(bench.split)))
    attacked = _attack(bench, subjects, rows, quiet=quiet)
    return {name: verdicts for name, (verdicts, _) in attacked.items()}


def attack_batch(bench: Bench, subjects: Sequence[Subject], rows: Rows) -> dict[str, tuple[Bools, float]]:
    """Attack some images of every subject.

    Args:
        rows: ascending positions in the split.

    Returns: for each subject (len(rows),) bool, robust; and the forward and backward passes that were spent.
    """
    images, results = take(bench.split, rows), {}
    for subject in subjects:
        robust, passes = np.ones(len(rows), np.bool_), 0.0
        is_fixed = not subject.spec.randomized  # what breaks it by chance in one pass is no example
        is_wanted = bench.warm_start and is_fixed and subject.before is not None and not subject.is_canary
        if is_wanted and not _is_known(bench, subject, images):
            assert subject.before is not None
            known = bench.examples.of(subject.before.entry.key)
            broken, spent = broken_by(known, subject.model, images, bench.suite.threat, bench.hardware)
            robust, passes = ~broken.numpy(), float(spent.sum())
        results[subject.spec.name] = robust, passes
    left = {name: rows[robust] for name, (robust, _) in results.items()}
    for name, (verdicts, spent_on) in _attack(bench, subjects, left).items():
        robust, passes = results[name]
        robust[robust] = verdicts.robust_any
        results[name] = robust, passes + spent_on
    return results


def _is_known(bench: Bench, subject: Subject, images: Split) -> bool:
    case = bench.case(subject.spec, images)
    return subject.is_cached and not _trusted(bench).absent(case_key(case), case.n)


def _attack(
    bench: Bench,
    subjects: Sequence[Subject],
    rows: Mapping[str, Rows],
    *,
    quiet: bool = True,
) -> dict[str, tuple[Verdicts, float]]:
    """The verdicts of each subject on its own rows, and the passes spent on it."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bench.folder, prefix=".fresh-") as fresh:
        cached = [subject for subject in subjects if subject.is_cached]
        others = [subject for subject in subjects if not subject.is_cached]
        found = _attack_into(_trusted(bench), bench, cached, rows, quiet=quiet)
        return found | _attack_into(Store(Path(fresh)), bench, others, rows, quiet=quiet)


def _attack_into(
    store: Store,
    bench: Bench,
    subjects: Sequence[Subject],
    rows: Mapping[str, Rows],
    *,
    quiet: bool,
) -> dict[str, tuple[Verdicts, float]]:
    """The same by one store: what it has is not computed again, and costs no passes."""
    cases = {
        subject.spec.name: bench.case(subject.spec, take(bench.split, rows[subject.spec.name]))
        for subject in subjects
        if len(rows[subject.spec.name])
    }
    if not cases:
        return {}
    whole = {subject.spec.name: case_key(bench.case(subject.spec, bench.split)) for subject in subjects}
    canaries = {subject.spec.name for subject in subjects if subject.is_canary}
    known = {name for name, case in cases.items() if not store.absent(case_key(case), case.n)}

    def keep(case: EvalCase, images: Split, points: Tensor) -> None:
        if case.model.name not in canaries:
            bench.examples.keep(whole[case.model.name], images.index, points)

    work = Work(
        list({case_key(case): case for case in cases.values()}.values()),
        bench.split,
        {case.images: rows[name] for name, case in cases.items()},
        {subject.spec.name: subject.model for subject in subjects},
        {subject.spec.name: subject.searched for subject in subjects},
        {subject.spec.name: subject.prediction for subject in subjects},
        keep=keep if bench.warm_start else None,
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


def _trusted(bench: Bench) -> Store:
    """Verdicts of the same code, libraries and kind of hardware: others' may be of another attack by the same name."""
    sha = hashlib.sha256()
    for package in ("attacks", "model_zoo", "benchmark"):
        for path in sorted((CODE / package).rglob("*.py")):
            sha.update(path.relative_to(CODE).as_posix().encode() + path.read_bytes())
    versions = [f"{name}={version(name)}" for name in VERSIONED]
    sha.update(" ".join([*versions, bench.hardware.device.type, str(bench.hardware.precision)]).encode())
    return Store(bench.folder / sha.hexdigest()[:16])
