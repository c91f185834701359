"""What the fit command does: a classical technique, fitted to a suite's training images, as a model of the suite."""

import re
import shlex
import time
from importlib.metadata import version

import torch

from attacks.errors import InputError
from attacks.judge import predict
from attacks.names import check_name, lookup
from benchmark.cli.options import Shared
from benchmark.cli.resolve_hardware import load_images
from benchmark.data.split import Split, balanced_subset, disjoint_part
from benchmark.suites.registry import SUITES
from model_zoo.architectures.registry import SHAPES, build
from model_zoo.card import card
from model_zoo.files.atomic import atomic_write, file_of, sha256_of
from model_zoo.model_spec import ModelSpec
from model_zoo.training.techniques import TECHNIQUES, fit_technique
from model_zoo.weights.checkpoint import save_state_dict

BATCH = 500


def fit(shared: Shared, *, technique: str, suite: str, examples: int | None, part: str, name: str | None) -> None:
    """Fit, and register the result by its card."""
    chosen, kind = lookup(suite, SUITES, "suite"), lookup(technique, TECHNIQUES, "technique")
    if chosen.dataset not in SHAPES:
        raise InputError(f"--suite {suite}: techniques are fitted to {' and '.join(SHAPES)}, got {chosen.dataset}")
    name = check_name(name or technique, "--name")
    stem = shared.checkpoint_dir / chosen.name / name
    if file_of(stem, ".json").exists():
        raise InputError(f"{file_of(stem, '.json')}: a model of that name is there already; use another --name")
    images = _part(load_images(chosen.dataset, "train", shared), part)
    if examples is not None:
        images = balanced_subset(images, examples, seed=shared.seed)
    architecture = kind.architecture(chosen.dataset, len(images))
    started = time.perf_counter()
    arrays = fit_technique(technique, images.x, images.y, classes=images.classes, seed=shared.seed)
    seconds = time.perf_counter() - started
    model = build(architecture, images.classes).eval()
    model.load_state_dict(arrays)
    best = file_of(stem, ".safetensors")
    save_state_dict(model.state_dict(), best, {})
    spec = ModelSpec(
        name,
        suites=(chosen.name,),
        dataset=chosen.dataset,
        architecture=architecture,
        defense=technique,
        checkpoint=f"{chosen.name}/{name}.safetensors",
        sha256=sha256_of(best),
        paper=kind.paper,
    )
    words = ["fit", "--technique", technique, "--suite", suite, "--part", part, "--name", name]
    words += ["--seed", str(shared.seed), *(["--examples", str(examples)] if examples else [])]
    record = {
        "command": shlex.join(["python", "run_benchmark.py", *words]),
        "settings": {"images": len(images), "part": part, "seed": shared.seed},
        "seconds": round(seconds),
        "versions": {"torch": torch.__version__, "scikit-learn": version("scikit-learn")},
    }
    atomic_write(file_of(stem, ".json"), card(spec, record))
    test = load_images(chosen.dataset, "test", shared)
    clean = 100 * (predict(model, test.x, batch_size=BATCH) == test.y).double().mean().item()
    print(f"Fitted {name} to {len(images)} images of {chosen.dataset}: {clean:.1f}% of {len(test)} test images.")


def _part(images: Split, text: str) -> Split:
    """Part i of n, given as i/n."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
    if not found or int(found[1]) > int(found[2]):
        raise InputError(f"--part must be i/n with i from 1 to n, as in 2/5, got {text!r}")
    return disjoint_part(images, int(found[1]), int(found[2]))
