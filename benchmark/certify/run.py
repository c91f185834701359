"""Certificates of some models into the store, and into what a suite's tables show."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attacks.errors import InputError
from attacks.judge import predict
from attacks.precision import full_float32
from benchmark.certify.case import CertifyCase, certify_key, identity
from benchmark.certify.methods import Method
from benchmark.certify.proofs import EXAMPLES, Asked, Proof, Subject
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_checks import check_identity, check_images, check_model
from benchmark.store.certificate_store import CertificateStore
from benchmark.store.certificates import UNKNOWN, Certificates, Certified
from benchmark.store.chunk import Range
from benchmark.suites.suite import Suite
from benchmark.sweep.local_pool import run_all
from benchmark.sweep.prepare import load_on
from model_zoo.files.locks import claim
from model_zoo.model_spec import ModelSpec


def certify_models(
    suite: Suite,
    models: Sequence[ModelSpec],
    methods: Sequence[Method],
    split: Split,
    store: CertificateStore,
    hardware: Hardware,
    *,
    seed: int,
    checkpoint_dir: Path = Path(),
    quiet: bool = False,
) -> list[Certified]:
    """Certify what the store lacks, method by method, and have the suite's tables show it.

    A method goes on with what cheaper ones leave unknown. Chunks are spread over processes, as those of attacks are.

    Raises: InputError, before anything is certified, for a model or a norm that a method does not take.
    """
    check_images(split)
    for method in methods:
        method.require_norm(suite.threat)
    cases = [
        CertifyCase(suite.name, split.digest, len(split), model, method, suite.threat, seed, split.origin)
        for method in methods
        for model in models
    ]
    lacking = {certify_key(case): store.absent(certify_key(case), case.n) for case in cases}
    wanted = {case.model.name: case.model for case in cases if lacking[certify_key(case)]}
    subjects = {name: _subject(spec, split, hardware, checkpoint_dir) for name, spec in wanted.items()}
    for case in cases:
        if lacking[certify_key(case)]:
            _require_bounds(case, subjects[case.model.name])
            store.write_case(certify_key(case), identity(case))
    todo = [(case, chunk) for case in cases for chunk in lacking[certify_key(case)]]
    workers = hardware.workers if hardware.device.type == "cpu" else 1
    with tqdm(total=len(todo), unit="chunk", disable=quiet) as bar:
        for method in methods:  # one after the other: a later one reads what an earlier one stored
            tasks = [task for task in todo if task[0].method is method]

            def compute(task: int, tasks: Sequence[tuple[CertifyCase, Range]] = tasks) -> None:
                case, chunk = tasks[task]
                _compute(case, chunk, subjects[case.model.name], split, store, hardware)

            bar.set_description_str(method.name)
            for _ in run_all(len(tasks), compute, workers):
                bar.update()
    return [store.show(suite.name, _certified(case, store)) for case in cases]


def _subject(spec: ModelSpec, split: Split, hardware: Hardware, checkpoint_dir: Path) -> Subject:
    """A model, checked as before an attack."""
    model = load_on(hardware, spec, split, checkpoint_dir)
    found = check_model(spec.name, model, split, hardware, needs_gradients=False, is_random=spec.randomized)
    check_identity(spec, found.flags)
    some = torch.linspace(0, len(split) - 1, min(EXAMPLES, len(split))).long()
    return Subject(model, tuple(split.x.shape[1:]), hardware.batch_size, split.x[some].to(hardware.device))


def _require_bounds(case: CertifyCase, subject: Subject) -> None:
    """Raise InputError where a method knows no bound for the model, before anything is computed."""
    if case.model.randomized:
        raise InputError(
            f"model {case.model.name}: expected a model without draws of its own, got one that answers at random; "
            "certify its base classifier by smoothing"
        )
    try:
        case.method.prepare(subject)
    except InputError as error:
        raise InputError(f"model {case.model.name}: {error}") from None


def _compute(
    case: CertifyCase, chunk: Range, subject: Subject, split: Split, store: CertificateStore, hardware: Hardware
) -> None:
    """Certify a chunk, and write it; what another process has claimed is waited for."""
    with claim(store.root, f"{certify_key(case)} {chunk}", wait=True):
        if store.read_chunk(certify_key(case), chunk) is None:
            started = time.perf_counter()
            with full_float32():
                certificates = _certificates(case, chunk, subject, split, store, hardware)
            timing = {"seconds": time.perf_counter() - started, "threads": torch.get_num_threads()}
            store.write_chunk(certify_key(case), chunk, certificates, timing)


def _certificates(
    case: CertifyCase, chunk: Range, subject: Subject, split: Split, store: CertificateStore, hardware: Hardware
) -> Certificates:
    """The certificates of a chunk: of a deterministic method, those that cheaper ones make are made by them."""
    rows = slice(*chunk)
    x, y, index = (part[rows].to(hardware.device) for part in (split.x, split.y, split.index))
    asked = Asked(x, y, index, case.threat, case.seed)
    if not case.method.is_deterministic:
        proof = case.method.prove(subject, asked, case.method.settings)
        return _as_stored(asked, proof, proof.prediction)
    prediction = predict(subject.model, x, batch_size=hardware.batch_size)
    whole = _nothing(asked)
    for name in (*case.method.after, case.method.name):
        one = case if name == case.method.name else case.by(name)
        stored = None if one is case else store.read_chunk(certify_key(one), chunk)
        if stored is not None:
            state = torch.from_numpy(stored[0].state.copy())
            whole = Proof(state, torch.from_numpy(stored[0].bound.copy()), whole.witness)
            continue
        left = ((whole.state == UNKNOWN) & (prediction == y).cpu()).nonzero().squeeze(1)
        if len(left):
            whole = _with(whole, left, one.method.prove(subject, asked.of(left), one.method.settings))
    return _as_stored(asked, whole, prediction)


def _nothing(asked: Asked) -> Proof:
    n = len(asked.y)
    return Proof(torch.full((n,), UNKNOWN), torch.full((n,), torch.nan, dtype=torch.float64), [None] * n)


def _with(whole: Proof, rows: Tensor, part: Proof) -> Proof:
    """A proof in which some rows are those of another, and no bound becomes looser."""
    state, bound, witness = whole.state.clone(), whole.bound.clone(), list(whole.witness)
    state[rows] = part.state.cpu()
    bound[rows] = torch.fmax(bound[rows], part.bound.cpu())
    for row, point in zip(rows.tolist(), part.witness, strict=True):
        witness[row] = point
    return Proof(state, bound, witness)


def _as_stored(asked: Asked, proof: Proof, prediction: Tensor | None) -> Certificates:
    assert prediction is not None
    return Certificates(
        index=asked.index.cpu().numpy(),
        label=asked.y.cpu().numpy(),
        prediction=prediction.cpu().numpy(),
        state=proof.state.cpu().numpy(),
        bound=proof.bound.numpy(),
        witness=[None if point is None else point.cpu().numpy().astype("<f4").tobytes() for point in proof.witness],
    )


def _certified(case: CertifyCase, store: CertificateStore) -> Certified:
    found = store.read(certify_key(case), case.n)
    assert found is not None
    certificates, _ = found
    is_right = certificates.prediction == certificates.label
    radius = None if case.method.is_deterministic else np.where(is_right, certificates.bound, -1.0).astype(np.float32)
    return Certified(
        model=case.model.name,
        network=case.model.identity,
        method=case.method.name,
        version=case.method.version,
        settings=case.method.described,
        is_deterministic=case.method.is_deterministic,
        norm=case.threat.norm,
        epsilon=case.threat.epsilon,
        images=case.images,
        seed=case.seed,
        index=certificates.index,
        state=certificates.state,
        radius=radius,
        origin=case.origin,
    )
