"""A model and images of the caller's, as the harness takes them: checked, identified, with a store for verdicts."""

import copy
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from attacks.errors import InputError
from attacks.input_checks import check_index, check_mode, class_count
from attacks.models.modes import device_of, moved, unchanged
from attacks.models.normalisation import Normalisation
from attacks.models.user_model import UserModel
from attacks.precision import precision_for
from attacks.search_model import COMPARED
from benchmark.data.collect import collect
from benchmark.data.split import Split
from benchmark.evaluation.hardware import Hardware, auto_batch_size
from benchmark.store.store import Store
from model_zoo.load import observed
from model_zoo.model_spec import ModelSpec
from model_zoo.weights.checkpoint import state_digest

SUITE = "python"
"""Under which the cases of such a model stand in a store."""


@dataclass(frozen=True)
class InMemory:
    """What a call from Python computes with.

    Args:
        spec: what identifies the model. model: itself, run as it must be.
        split: the images, on the CPU. first_images: some of them, on the model's device.
        hardware: the model's device. store: for verdicts.
    """

    spec: ModelSpec
    model: nn.Module
    split: Split
    first_images: Tensor
    hardware: Hardware
    store: Store


@contextmanager
def in_memory(
    model: nn.Module,
    x: Tensor | Dataset[Any] | Iterable[Any],
    y: Tensor | None,
    *,
    name: str,
    index: Tensor | None,
    store: str | Path | None,
    output: str,
    normalisation: Normalisation | None,
    rejects: bool,
    batch_size: int | None,
    precision: str,
) -> Iterator[InMemory]:
    """Hold a model of the caller's, which is left as it is. Args, Raises: as `benchmark.evaluate`."""
    check_mode(model)
    images, labels = collect(x, y)
    device = device_of(model, default=images.device)
    with unchanged(model), _folder(store) as root:
        spec = replace(_spec(model, images, name, output, normalisation), rejects=rejects)
        if store is None and not spec.answers:
            spec = replace(spec, answers=uuid4().hex)  # nothing is kept that another call might take for its own
        assert spec.quirks is not None
        wrapped = UserModel(model, spec.quirks)
        classes = class_count(wrapped, images[:2].to(device), labels, rejects=rejects)
        split = Split(SUITE, "test", images, labels, check_index(index, len(labels)), classes)
        size = auto_batch_size(device) if batch_size is None else batch_size
        hardware = Hardware(device, precision_for(precision, images, device), size, finds_batch=batch_size is None)
        yield InMemory(spec, wrapped, split, images[:COMPARED].to(device), hardware, Store(Path(root)))


def _folder(store: str | Path | None) -> AbstractContextManager[str | Path]:
    """The folder of the store as a context; a temporary one where nothing is to be kept."""
    if store is None:
        return tempfile.TemporaryDirectory()
    try:
        Path(store).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"store: expected a folder that can be written to, got {store} ({error.strerror})") from None
    return nullcontext(store)


def _spec(model: nn.Module, x: Tensor, name: str, output: str, normalisation: Normalisation | None) -> ModelSpec:
    """What identifies the model: its class, its weights, and what it answers to fixed images."""
    kind = type(model)
    spec = ModelSpec(
        name=name,
        suites=(SUITE,),
        dataset=SUITE,
        architecture=kind.__qualname__,
        defense="",
        checkpoint="",
        sha256=state_digest(model.state_dict()),
        code=f"{kind.__module__}.{kind.__qualname__}",
    )
    for probed in _to_probe(model):
        found = observed(
            spec,
            probed,
            tuple(x.shape[1:]),
            output,
            normalisation=normalisation,
            more_images=[x[:COMPARED]],
            tries_layouts=False,
        )
        if found.answers:
            break
    return found


def _to_probe(model: nn.Module) -> Iterator[nn.Module]:
    """What fixed images may be shown to: copies, so that the model stays as it is, first on the CPU as for files."""
    for place in (torch.device("cpu"), device_of(model)):
        with suppress(Exception):  # a model may hold what cannot be copied, or moved
            yield moved(copy.deepcopy(model), place)
    yield model
