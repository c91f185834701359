"""What a sweep has to do: the cases that lack verdicts, and all that computing them needs, checked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.models.modes import moved
from attacks.precision import is_tiny
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.batch_size import find_batch_size
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_checks import check_identity, check_images, check_on_fitting_batches
from benchmark.evaluation.search_copy import search_copy
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase, case_key, identity
from benchmark.sweep.recent_models import RecentModels
from model_zoo.load import load_model
from model_zoo.model_spec import ModelSpec


@dataclass(frozen=True)
class PreparedSweep:
    """Cases that lack verdicts, and all that computing them needs, checked.

    Args:
        cases: with a chunk missing.
        split: the images.
        rows: by digest of a case's images, where they stand in the split.
        models: by name, on the device, in eval mode, frozen; of a run whose workers load their own, the last one.
        searched: by name, the copies that attacks search on; none of such a run.
        predictions: of the judged models by name, (N,) classes of the clean images by one pass.
        checkpoint_dir: where the models' weights came from.
        batch_size: the largest that the models were found to fit in; None where nothing was tried.
    """

    cases: Sequence[EvalCase]
    split: Split
    rows: Mapping[str, NDArray[np.int64]]
    models: Mapping[str, nn.Module]
    searched: Mapping[str, nn.Module]
    predictions: Mapping[str, Tensor]
    checkpoint_dir: Path = Path()
    batch_size: int | None = None


def prepare(
    cases: Sequence[EvalCase],
    split: Split,
    store: Store,
    hardware: Hardware,
    *,
    checkpoint_dir: Path,
    models: Mapping[str, nn.Module] = MappingProxyType({}),
) -> PreparedSweep:
    """Load the models that the cases take, check them and the images, and write the cases' records.

    Args:
        cases: what `lacking_cases` found; the order changes no byte of any verdict.
        split: the images that all cases attack, or a part of them.
        checkpoint_dir: where the models' weights are looked for first.
        models: by name, those that are loaded already: on the device, in eval mode, frozen.

    Raises: InputError, before any attack, for images or a model that no number would mean anything for.
    """
    if not cases:
        return PreparedSweep((), split, {}, {}, {}, {})
    store.open()
    check_images(split)
    for case in cases:
        case.attack.require_data(split.x.shape[1:], split.classes, case.threat.norm)
    every = {spec.name: spec for case in cases for spec in (case.model, case.source)}

    def load(name: str) -> nn.Module:
        return models[name] if name in models else load_on(hardware, every[name], split, checkpoint_dir)

    loaded = RecentModels(load, 1 if hardware.is_remote else len(every))
    specs = _distinct(case.model for case in cases)
    if hardware.finds_batch:
        found = find_batch_size(map(loaded.__getitem__, every), split.x, split.y, hardware)
        hardware = replace(hardware, batch_size=found)
    by_gradient = {case.source.name for case in cases if case.attack.needs_gradients}
    checked = {}
    for spec in specs:
        about = {
            "needs_gradients": spec.name in by_gradient,
            "is_random": spec.randomized,
            "rejects": spec.rejects,
        }
        checked[spec.name], hardware = check_on_fitting_batches(spec.name, loaded[spec.name], split, hardware, **about)
    for spec in specs:
        check_identity(spec, checked[spec.name].flags)
    for case in cases:
        about_model = checked[case.model.name]
        caveats = {"flags": list(about_model.flags), "zero_gradients": about_model.zero_gradients}
        store.write_case(case_key(case), {"identity": identity(case), **caveats})
    sources = [] if hardware.is_remote else _distinct(case.source for case in cases)
    searched = {spec.name: search_copy(spec, loaded[spec.name], split, hardware) for spec in sources}
    rows = {case.images: _rows(split, case) for case in {case.images: case for case in cases}.values()}
    predictions = {name: about_model.prediction for name, about_model in checked.items()}
    return PreparedSweep(cases, split, rows, loaded, searched, predictions, checkpoint_dir, hardware.batch_size)


def _rows(split: Split, case: EvalCase) -> NDArray[np.int64]:
    """Where the images of a case stand in the split: all of them, or the seeded balanced subset of that size."""
    part = balanced_subset(split, case.n, seed=case.seed)
    assert part.digest == case.images
    return np.searchsorted(split.index.numpy(), part.index.numpy())


def load_on(hardware: Hardware, spec: ModelSpec, split: Split, checkpoint_dir: Path) -> nn.Module:
    """A model on the device, in the memory layout that is fastest there, of those that it takes."""
    model = moved(load_model(spec, checkpoint_dir, classes=split.classes), hardware.device)
    is_contiguous = is_tiny(split.x) or (spec.quirks is not None and spec.quirks.is_contiguous)
    return model if is_contiguous else moved(model, memory_format=torch.channels_last)


def _distinct(specs: Iterable[ModelSpec]) -> list[ModelSpec]:
    return list({spec.name: spec for spec in specs}.values())
