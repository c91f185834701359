"""Attacks on models under test: what no earlier run of the same code has computed."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.spec import AttackSpec
from benchmark.data.split import Split, take
from benchmark.evaluation.hardware import Hardware, device_name, versions_text
from benchmark.stats.shares import Bools
from benchmark.store.packed import PackedCase
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key, with_pass_counts
from benchmark.suites.suite import Suite
from benchmark.sweep.prepare import PreparedSweep
from benchmark.sweep.sweep import sweep
from model_zoo.model_spec import ModelSpec

CODE = Path(__file__).resolve().parents[2]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class GateProtocol:
    """How all models are attacked: by which attack, under which threat model, on which images and hardware.

    Args:
        folder: where earlier runs left verdicts, and this one leaves its own.
    """

    suite: Suite
    attack: AttackSpec
    split: Split
    seed: int
    hardware: Hardware
    folder: Path

    def case(self, spec: ModelSpec, images: Split) -> EvalCase:
        """The attack on some of the images."""
        suite, where = self.suite, images.digest
        return with_pass_counts(
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


def attack_all(protocol: GateProtocol, subjects: Sequence[Subject], *, quiet: bool) -> dict[str, Verdicts]:
    """The verdicts of every subject on all images, for a baseline."""
    attacked = _attack(protocol, subjects, np.arange(len(protocol.split)), quiet=quiet)
    return {name: verdicts for name, (verdicts, _) in attacked.items()}


def attack_subjects(protocol: GateProtocol, subjects: Sequence[Subject], rows: Rows) -> dict[str, tuple[Bools, float]]:
    """Attack some images of every subject.

    Args:
        rows: ascending positions in the split.

    Returns: for each subject (len(rows),) bool, robust; and the forward and backward passes that were spent.
    """
    attacked = _attack(protocol, subjects, rows)
    return {name: (verdicts.robust_any, passes) for name, (verdicts, passes) in attacked.items()}


def _attack(
    protocol: GateProtocol, subjects: Sequence[Subject], rows: Rows, *, quiet: bool = True
) -> dict[str, tuple[Verdicts, float]]:
    """The verdicts of each subject, and the passes spent on it."""
    protocol.folder.mkdir(parents=True, exist_ok=True)
    (protocol.folder / ".gitignore").write_text("*\n", encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=protocol.folder, prefix=".fresh-") as fresh:
        cached = [subject for subject in subjects if subject.is_cached]
        others = [subject for subject in subjects if not subject.is_cached]
        found = _attack_into(_trusted(protocol), protocol, cached, rows, quiet=quiet)
        return found | _attack_into(Store(Path(fresh)), protocol, others, rows, quiet=quiet)


def _attack_into(
    store: Store, protocol: GateProtocol, subjects: Sequence[Subject], rows: Rows, *, quiet: bool
) -> dict[str, tuple[Verdicts, float]]:
    """The same by one store: what it has is not computed again, and costs no passes."""
    if not subjects:
        return {}
    images = take(protocol.split, rows)
    cases = {subject.spec.name: protocol.case(subject.spec, images) for subject in subjects}
    known = {name for name, case in cases.items() if not store.absent(case_key(case), case.n)}
    prepared = PreparedSweep(
        list({case_key(case): case for case in cases.values()}.values()),
        protocol.split,
        {case.images: rows for case in cases.values()},
        {subject.spec.name: subject.model for subject in subjects},
        {subject.spec.name: subject.searched for subject in subjects},
        {subject.spec.name: subject.prediction for subject in subjects},
    )
    store.open()
    sweep(prepared, store, protocol.hardware, quiet=quiet)
    results = {}
    for name, case in cases.items():
        stored = store.read(case_key(case), case.n)
        assert stored is not None
        passes = stored[0].forwards.sum() + stored[0].backwards.sum()
        results[name] = stored[0], 0.0 if name in known else float(passes)
    return results


def _trusted(protocol: GateProtocol) -> Store:
    """Verdicts of the same code, libraries and device: others' may be of another attack by the same name."""
    sha = hashlib.sha256()
    for package in ("attacks", "model_zoo", "benchmark"):
        for path in sorted((CODE / package).rglob("*.py")):
            sha.update(path.relative_to(CODE).as_posix().encode() + path.read_bytes())
    hardware = protocol.hardware
    sha.update(f"{versions_text(hardware.device)} {device_name(hardware)} {hardware.precision}".encode())
    return Store(protocol.folder / sha.hexdigest()[:16])
