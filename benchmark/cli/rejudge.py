"""Verdicts judged again: from the kept images and the model alone, in one forward pass, without any attack."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.judge import predict, predict_expected, refuse_outside, withstands
from attacks.spatial import SPATIAL
from attacks.threat_model import ThreatModel
from benchmark.cli.options import Shared
from benchmark.data.datasets import DATASETS
from benchmark.data.split import Split
from benchmark.store.audit import ever_shown
from benchmark.store.chunk import Range, chunk_ranges, unpack, whole_content
from benchmark.store.images import image_files, unpack_images
from benchmark.store.store import Store
from benchmark.suites.case import key_of
from benchmark.suites.registry import SUITES
from model_zoo.load import load_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import models_of

BATCH = 250


@dataclass(frozen=True)
class Rejudged:
    """What came of a case.

    Args:
        images: how many were judged again.
        changed: how many of their verdicts differ; changed_rounded: how many would after rounding to 8 bits.
        are_all: whether they are all that the case attacked, which its record proves; of a part nobody can tell.
    """

    images: int
    changed: int
    changed_rounded: int
    are_all: bool


def rejudge_store(shared: Shared) -> None:
    """Judge every kept image of the store again, case by case, and say where a verdict is another."""
    store = Store(shared.results_dir / "runs")
    store.check()
    keys = [key for key in store.case_keys() if any(image_files(store.root / "cases" / key))]
    if not keys:
        raise InputError(f"expected kept images in {store.root}, found none; run the benchmark with --keep-images")
    known = {spec.sha256: spec for suite in SUITES for spec in models_of(suite, shared.checkpoint_dir).values()}
    models: dict[str, nn.Module] = {}
    faults = 0
    for key in keys:
        try:
            spec = _spec(store, key, known)
            if spec.sha256 not in models:
                classes = DATASETS[spec.dataset].classes
                models[spec.sha256] = load_model(spec, shared.checkpoint_dir, classes=classes)
            rejected = DATASETS[spec.dataset].classes if spec.rejects else None
            result = rejudge_case(store, key, models[spec.sha256], rejected=rejected)
        except ValueError as error:  # InputError, too
            print(f"{key}: {error}")
            faults += 1
            continue
        faults += result.changed > 0
        print(
            f"{key}: {spec.name}, {result.images} images, {result.changed} verdicts differ; rounded to 8 bits "
            f"{result.changed_rounded} would"
            + ("" if result.are_all else "; a part of the case's images, which nothing proves to be those")
        )
    print(f"{store.root}: {len(keys)} cases judged again, {faults} with faults")
    if faults:
        sys.exit(1)


def rejudge_case(store: Store, key: str, model: nn.Module, *, rejected: int | None = None) -> Rejudged:
    """Judge the kept images of a case.

    Args:
        rejected: as for `attacks.judge.judge`.

    Raises: ValueError, in one line, for files that are damaged or do not belong together, and for images outside of the
        threat model.
    """
    identity = _identity(store, key)
    threat = ThreatModel(**identity["threat"])
    if threat.family == SPATIAL:
        raise ValueError("it proposed rotations and shifts, and of these the images alone are kept; run it again")
    folder = store.root / "cases" / key
    verdicts = dict(store.chunks(key))
    images = changed = rounded = 0
    seen: list[dict[str, Any]] = []
    files = dict(image_files(folder))
    for chunk, path in files.items():
        kept = unpack_images(path)
        seen.append({name: kept[name] for name in ("x", "y", "index")})
        robust, batch_size = _robust_verdicts(verdicts, key, chunk, kept)
        x, y, x_adv = (torch.from_numpy(kept[name]) for name in ("x", "y", "x_adv"))
        refuse_outside(x, x_adv, threat)
        draws = {"draws": identity.get("judge_draws", 0), "key": (identity["seed"], int(kept["index"][0]))}
        classes, on_x_adv, on_eight_bits = (
            predict_expected(model, points, **draws, batch_size=batch_size)[0]
            if draws["draws"]
            else predict(model, points, batch_size=BATCH)
            for points in (x, x_adv, (x_adv * 255).round() / 255)
        )
        images += len(y)
        changed += int(((classes == y) & withstands(on_x_adv, y, rejected) != robust).sum())
        rounded += int(((classes == y) & withstands(on_eight_bits, y, rejected) != robust).sum())
    are_all = _digest(seen) == identity["images"]
    if not are_all and _covers(store, key, list(files)):
        raise ValueError("the clean images kept are not those that the case attacked")
    return Rejudged(images, changed, rounded, are_all)


def _digest(parts: Sequence[dict[str, Any]]) -> str:
    """Of the clean images of several files, as a case's record has it."""
    x, y, index = (torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in ("x", "y", "index"))
    return Split("", "", x, y, index, 0).digest


def _covers(store: Store, key: str, chunks: Sequence[Range]) -> bool:
    """Whether chunks are all of a case, as far as a table says how many images it has."""
    sizes = {case.key: case.n for suite in store.suites() for case in ever_shown(store, suite)}
    return key in sizes and set(chunk_ranges(sizes[key])) <= set(chunks)


def _robust_verdicts(verdicts: dict[Range, Path], key: str, chunk: Range, kept: dict[str, Any]) -> tuple[Tensor, int]:
    """(N,) bool, what the store says of the images, and the batch size at which it was found, which randomised models
    draw for. Raises: ValueError where it says nothing, or of others."""
    content = whole_content(verdicts[chunk]) if chunk in verdicts else None
    if content is None:
        raise ValueError(f"the verdicts of images {chunk[0]} to {chunk[1]} are missing or damaged")
    columns, timing = unpack(content, key, chunk)
    if not (np.array_equal(columns["index"], kept["index"]) and np.array_equal(columns["label"], kept["y"])):
        raise ValueError(f"the images {chunk[0]} to {chunk[1]} are not those of the verdicts")
    return torch.from_numpy(columns["robust_any"].copy()), int(timing.get("batch_size", BATCH))


def _identity(store: Store, key: str) -> dict[str, Any]:
    """What a case is. Raises: ValueError where its record does not say, or is that of another case."""
    identity = (store.read_case(key) or {}).get("identity")
    if not isinstance(identity, dict) or key_of(identity) != key:
        raise ValueError("its record is missing or damaged, or that of another case")
    return identity


def _spec(store: Store, key: str, known: dict[str, ModelSpec]) -> ModelSpec:
    identity = _identity(store, key)["model"]
    spec = known.get(identity["checkpoint_sha256"])
    if spec is None or spec.identity != identity:
        raise ValueError(f"its model, of sha256 {identity['checkpoint_sha256'][:12]}, is not known here")
    return spec
