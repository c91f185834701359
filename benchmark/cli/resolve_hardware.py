"""The images and the hardware that the options ask for."""

import re
import sys
from dataclasses import replace
from typing import Any

import torch

from attacks.errors import InputError
from attacks.precision import is_tiny, precision_for
from benchmark.cli.options import OwnData, OwnModel, Shared
from benchmark.data.datasets import DATASETS, load
from benchmark.data.image_arrays import ARRAYS
from benchmark.data.image_readers import CROPS, own_images
from benchmark.data.own_images import OwnImages
from benchmark.data.split import Split, balanced_subset, with_wider
from benchmark.evaluation.hardware import Hardware, Resources, auto_batch_size, keep_freed_memory, own_resources
from benchmark.suites.suite import Suite
from benchmark.sweep.local_pool import can_fork
from benchmark.sweep.ray_pool import ray_resources
from model_zoo.about import About
from model_zoo.crop import Crop
from model_zoo.hub import about_published, is_published


def load_images(dataset: str, part: str, shared: Shared) -> Split:
    """All images of a part, "train" or "test", from where the options say."""
    where: dict[str, Any] = {"data_dir": shared.data_dir, "mirror": shared.mirror_dir, "classes": shared.classes}
    return load(dataset, part, **where, quiet=shared.quiet)


def bring_images(own_data: OwnData, shared: Shared, dataset: str | None, own: OwnModel) -> OwnImages | None:
    """The images that the user brings along; None where there are none.

    Args:
        dataset: of the suite that is named, which may say of what size its images are.
        own: his own model; where it is published its size and interpolation are known, and the order of its labels.
    """
    if own_data.data is None:
        if own_data != OwnData():
            raise InputError("--image-size, --channels and --skip-broken are for images of --data; leave them out")
        return None
    if own_data.channels == 2:
        raise InputError("--channels must be 1 (grey levels) or 3 (RGB), got 2")
    about = about_published(own.model) if own.model is not None and is_published(own.model) else About()
    crop = Crop(*own_data.image_size, about.interpolation) if own_data.image_size else None
    if crop is None and own_data.data.suffix != ARRAYS:  # which are as they are, whatever a suite or a model says
        crop = about.crop or CROPS.get(dataset or "")
    labels = () if own.checkpoint else about.labels  # of other weights the order is unknown
    return own_images(own_data.data, crop=crop, channels=own_data.channels, classes=shared.classes, labels=labels)


def shape_of(suite: Suite, brought: OwnImages | None) -> tuple[int, int, int]:
    """(C, H, W) of the images that a suite attacks."""
    return DATASETS[suite.dataset].shape if brought is None else brought.shape


def choose_images(
    suite: Suite, shared: Shared, brought: OwnImages | None = None, *, skip_broken: int | None = None
) -> Split:
    """The test images of a suite, or those that the user brings along, or a seeded balanced subset."""
    if brought is not None:
        broken = skip_broken or 0
        return brought.select(suite.examples, seed=shared.seed, most_broken=broken, quiet=shared.quiet)
    split = load_images(suite.dataset, "test", shared)
    split = replace(split, origin=split.digest)
    if suite.examples is None:
        return split
    if suite.examples > len(split):
        print(
            f"note: {suite.dataset} has {len(split)} test images, not {suite.examples}: all are taken", file=sys.stderr
        )
    chosen = balanced_subset(split, suite.examples, seed=shared.seed)
    return with_wider(chosen, split, seed=shared.seed)


def tuned(hardware: Hardware, suite: Suite, split: Split, shared: Shared) -> Hardware:
    """The hardware set up for images of this size: threads, processes, and precision, unless chosen.

    A worker on each GPU, of this machine or of Ray's cluster; without any, one on each core under Ray and for tiny
    images, else one that uses all cores.
    """
    on_ray = shared.executor == "ray"
    _refuse_shares(shared)
    there = ray_resources() if on_ray else own_resources()
    share = _gpus_per_worker(shared, there) if on_ray else 0.0
    if shared.workers != "auto":
        workers = positive(shared.workers, "--workers")
    elif on_ray:
        workers = max(1, there.room_for(share))
    elif hardware.device.type == "cuda":
        workers = int(there.gpus)
    else:
        workers = processes(shared) if is_tiny(split.x) else 1
    if workers > 1 and not on_ray and hardware.device.type == "cpu" and not can_fork():
        raise InputError("--workers on the CPU needs Linux; use --workers 1, or --executor ray")
    if workers > 1:
        torch.set_num_threads(1)
    use_threads(split, hardware)
    tuned = replace(hardware, workers=workers, executor=shared.executor, gpus_per_worker=share)
    if tuned.finds_batch:
        tuned = replace(tuned, batch_size=auto_batch_size(tuned.device_of_workers))
    is_auto = shared.precision == "auto" and suite.precision != "fp32"
    finds = is_auto and tuned.device_of_workers != hardware.device
    return replace(tuned, precision=search_precision(hardware, suite, split, shared), finds_precision=finds)


def _refuse_shares(shared: Shared) -> None:
    """Raise InputError for a share of a GPU that means nothing, whatever Ray has."""
    asked = shared.gpus_per_worker
    if asked is not None and shared.executor != "ray":
        raise InputError("--gpus-per-worker is for --executor ray; without it every worker uses the next GPU")
    if asked is not None and asked < 0:
        raise InputError(f"--gpus-per-worker must be 0 or more, got {asked:g}")
    if asked and shared.device == "cpu":
        raise InputError(f"--device cpu and --gpus-per-worker {asked:g} contradict each other; leave one of them out")


def _gpus_per_worker(shared: Shared, there: Resources) -> float:
    """Of Ray's workers: as asked for, else a whole one where there are some."""
    asked = shared.gpus_per_worker
    if shared.device == "cuda" and not (there.gpus or asked):
        raise InputError("--device cuda: Ray has no GPU; use --device cpu or auto")
    if asked is not None:
        return asked
    return float(shared.device != "cpu" and there.gpus > 0)


def processes(shared: Shared) -> int:
    """How many as asked for, else one on each core of this machine."""
    if shared.workers != "auto":
        return positive(shared.workers, "--workers")
    return own_resources().cpus if can_fork() else 1


def search_precision(hardware: Hardware, suite: Suite, split: Split, shared: Shared) -> torch.dtype:
    """As asked for; else the suite's; else that of `choose_precision`."""
    if shared.precision == "auto" and suite.precision == "fp32":
        return torch.float32
    return choose_precision(hardware, split, shared)


def choose_precision(hardware: Hardware, split: Split, shared: Shared) -> torch.dtype:
    """As asked for; else the device's fastest, but float32 for tiny images, which gain nothing from another."""
    return precision_for(shared.precision, split.x, hardware.device)


def use_threads(split: Split, hardware: Hardware) -> None:
    """One thread for tiny images: they are done before a second one has woken up, and on shared cores it never is."""
    if hardware.device.type == "cpu" and is_tiny(split.x):
        torch.set_num_threads(1)


def choose_hardware(shared: Shared) -> Hardware:
    """Device, precision and batch size as asked for, or as the machine has it."""
    if shared.device == "cuda" and not torch.cuda.is_available() and shared.executor != "ray":
        raise InputError("--device cuda: this machine has no usable CUDA device; use --device cpu or auto")
    device = torch.device("cuda" if shared.device != "cpu" and torch.cuda.is_available() else "cpu")
    is_auto = shared.batch_size == "auto"
    if device.type == "cpu":
        keep_freed_memory()
    return Hardware(
        device=device,
        precision=torch.bfloat16 if shared.precision == "bf16" else torch.float32,
        batch_size=auto_batch_size(device) if is_auto else positive(shared.batch_size, "--batch-size"),
        finds_batch=is_auto,
    )


def positive(text: str, option: str) -> int:
    """The value of an option that is "auto" or a positive number, where it is not "auto"."""
    if not (re.fullmatch("[0-9]{1,9}", text) and int(text) > 0):
        raise InputError(f"{option} must be auto or a positive whole number, got {text!r}")
    return int(text)
