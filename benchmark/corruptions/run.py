"""Models under corruptions into the store: each corrupted chunk is made once, for all models that lack it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from attacks.errors import InputError
from attacks.judge import predict
from benchmark.corruptions.cases import CLEAN, cases_of, corruption_and_severity, rank_of
from benchmark.corruptions.images import corrupted, require_library, require_size
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_checks import check_identity, check_images, check_model
from benchmark.store.chunk import Range
from benchmark.store.selection import show
from benchmark.store.store import Store, discard
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key, identity
from benchmark.suites.suite import Suite
from benchmark.sweep.prepare import load_on
from model_zoo.files.locks import claim
from model_zoo.model_spec import ModelSpec


def corrupt_models(
    suite: Suite,
    models: Sequence[ModelSpec],
    corruptions: Sequence[str],
    split: Split,
    store: Store,
    hardware: Hardware,
    *,
    seed: int,
    checkpoint_dir: Path = Path(),
    quiet: bool = False,
) -> None:
    """Compute what the store lacks, and have the suite's table of corruptions show it.

    Args:
        corruptions: names, of `images.CORRUPTIONS`.

    Raises: InputError, before anything is computed, for images or a model that no number would mean anything for.
    """
    require_library()
    require_size(split.x)
    check_images(split)
    if random := [model.name for model in models if model.randomized]:
        raise InputError(f"corruptions are for models without draws of their own, got {', '.join(random)}")
    cases = cases_of(suite, models, split, corruptions, seed=seed)
    for case in cases:
        for path in store.damaged(case_key(case)):
            discard(path)
    lacking = {case_key(case): store.absent(case_key(case), case.n) for case in cases}
    loaded = {
        model.name: _loaded(model, split, hardware, checkpoint_dir)
        for model in models
        if any(lacking[case_key(case)] for case in cases if case.model is model)
    }
    for case in cases:
        if not store.has_record(case_key(case)):
            store.write_case(case_key(case), {"identity": identity(case), "flags": []})
    names = [model.name for model in models]
    ranks = [rank_of(case, names) for case in cases]
    with claim(store.root, f"suite {suite.name}", wait=True):
        show(store, suite.name, "any", cases, ranks, images=split.digest)
    _compute_all(cases, lacking, loaded, split, store, hardware, quiet=quiet)


def _loaded(spec: ModelSpec, split: Split, hardware: Hardware, checkpoint_dir: Path) -> nn.Module:
    """A model, checked as before an attack."""
    model = load_on(hardware, spec, split, checkpoint_dir)
    check_identity(spec, check_model(spec.name, model, split, hardware, needs_gradients=False).flags)
    return model


def _compute_all(
    cases: Sequence[EvalCase],
    lacking: Mapping[str, Sequence[Range]],
    loaded: Mapping[str, nn.Module],
    split: Split,
    store: Store,
    hardware: Hardware,
    *,
    quiet: bool,
) -> None:
    tasks: dict[tuple[str, Range], list[EvalCase]] = {}
    for case in cases:
        for chunk in lacking[case_key(case)]:
            tasks.setdefault((case.attack.name, chunk), []).append(case)
    with tqdm(total=len(tasks), unit="chunk", disable=quiet) as bar:
        for (name, chunk), group in tasks.items():
            bar.set_description_str(name)
            with claim(store.root, f"{name} {split.digest[:16]} {chunk}", wait=True):
                _compute(group, chunk, loaded, split, store, hardware)
            bar.update()


def _compute(
    group: Sequence[EvalCase],
    chunk: Range,
    loaded: Mapping[str, nn.Module],
    split: Split,
    store: Store,
    hardware: Hardware,
) -> None:
    """One chunk under one corruption, for all models that still lack it."""
    wanted = [case for case in group if chunk in store.absent(case_key(case), case.n)]
    if not wanted:
        return
    rows = slice(*chunk)
    x, y, index = split.x[rows].to(torch.device("cpu")), split.y[rows], split.index[rows]
    corruption, severity = corruption_and_severity(wanted[0].attack.name)
    if corruption != CLEAN:
        x = corrupted(x, index, corruption, severity, seed=wanted[0].seed)
    part = replace(split, x=x, y=y, index=index)
    for case in wanted:
        started = time.perf_counter()
        predicted = predict(loaded[case.model.name], x.to(hardware.device), batch_size=hardware.batch_size)
        timing = {"seconds": time.perf_counter() - started, "threads": torch.get_num_threads()}
        store.write_chunk(case_key(case), chunk, _verdicts(part, predicted), timing)


def _verdicts(part: Split, predicted: Tensor) -> Verdicts:
    """Of corrupted images, for which no attack is run: robust is correct."""
    prediction, label = predicted.cpu().numpy(), part.y.numpy()
    n = len(label)
    correct = prediction == label
    return Verdicts(part.index.numpy(), label, prediction, correct, None, np.ones(n), np.zeros(n))
