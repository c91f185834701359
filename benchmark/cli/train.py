"""What the train command does: names to a defense, its recipe and images, and on to the trainer."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

import torch

from attacks.errors import InputError
from attacks.names import check_name, lookup
from benchmark.cli.options import Shared
from benchmark.cli.resolve_hardware import (
    choose_hardware,
    choose_images,
    choose_precision,
    load_images,
    positive,
    use_threads,
)
from benchmark.data.split import Split, balanced_subset, holdout
from benchmark.evaluation.hardware import versions
from benchmark.suites.registry import SUITES
from benchmark.suites.suite import Suite
from benchmark.training.first_stage import first_stem, prepare_first_stage
from benchmark.training.settings import training_settings
from model_zoo.bounds.certified import BOUNDS
from model_zoo.card import card
from model_zoo.defenses.registry import defense_spec
from model_zoo.files.atomic import atomic_write, file_of
from model_zoo.load import load_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import OF_LAST
from model_zoo.training.curve import draw_curve
from model_zoo.training.loop import Training
from model_zoo.training.loop import train as run_training
from model_zoo.training.process_group import assemble
from model_zoo.training.recipe import Recipe
from model_zoo.training.state import forget


def train(shared: Shared, *, defense: str, suite: str, recipe: str, overrides: Sequence[str], name: str | None) -> None:
    """Train, and register the result by its card."""
    spec = defense_spec(defense)
    chosen = lookup(suite, SUITES, "suite")
    params, settings = training_settings(spec, chosen, recipe, overrides)
    name = check_name(name or spec.model_name.format(**params), "--name")
    params = {key: value for key, value in params.items() if key in spec.params}  # the mask's is in the architecture
    if name.endswith(OF_LAST):
        raise InputError(f"--name {name}: a name that ends in {OF_LAST} is that of the last epoch; use another")
    hardware = choose_hardware(shared)
    workers = 1 if shared.workers == "auto" else positive(shared.workers, "--workers")
    images, validation = _training_images(chosen, settings, shared)
    use_threads(images, hardware)
    precision = choose_precision(hardware, images, shared)
    threat = chosen.threat if settings.epsilon is None else replace(chosen.threat, epsilon=settings.epsilon)
    stem = shared.checkpoint_dir / chosen.name / name
    done = file_of(stem, ".json")
    if done.exists():
        raise InputError(f"{done}: a model of that name is trained already; use another --name, or remove it")
    team = assemble(workers, hardware.device)
    with team.telling_once():
        before = prepare_first_stage(
            spec,
            settings,
            recipe,
            threat,
            images,
            validation,
            stem,
            team=team,
            precision=precision,
            seed=shared.seed,
            quiet=shared.quiet,
        )
        training = Training(
            spec, params, settings, threat, shared.seed, f"{before.digest} {validation.digest}", before.sha256
        )
        trained = run_training(
            training,
            before.images,
            validation,
            stem,
            team=team,
            precision=precision,
            pool=before.pool,
            source=before.model,
            quiet=shared.quiet,
        )
    if not team.is_leader:
        return
    model = ModelSpec(
        name=name,
        suites=(chosen.name,),
        dataset=chosen.dataset,
        architecture=settings.architecture,
        defense=defense,
        checkpoint=f"{chosen.name}/{name}.safetensors",
        sha256=trained.sha256,
        paper=spec.paper,
        randomized=spec.mask is not None and spec.mask.randomized,
        rejects=spec.rejects,
    )
    record: dict[str, object] = {
        "command": _command(defense, suite, recipe, overrides, name, shared),
        "settings": training.settings(),
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
        "device": str(hardware.device),
        "seconds": round(trained.seconds),
        "backwards_per_image": round(trained.backwards_per_image, 4),
        **({"workers": workers} if workers > 1 else {}),
        "versions": versions(hardware.device),
    }
    if spec.bound is not None:
        record["certified"] = _certificate(model, spec.bound, chosen, shared)
    draw_curve(stem)
    atomic_write(done, card(model, record))
    forget(stem)
    forget(first_stem(stem))
    print(f"Trained {name}: {stem}.safetensors, sha256 {trained.sha256}")
    print(f"Evaluate it: python run_benchmark.py {shlex.join(_evaluation(chosen, name, shared))}")


def _evaluation(suite: Suite, name: str, shared: Shared) -> list[str]:
    """The words that attack the trained model, with the folders that were given."""
    words, usual = ["--suite", suite.name, "--models", name], Shared()
    for folder in ("checkpoint_dir", "data_dir", "mirror_dir", "classes"):
        if getattr(shared, folder) != getattr(usual, folder):
            words += [f"--{folder.replace('_', '-')}", str(getattr(shared, folder))]
    return words


def _certificate(model: ModelSpec, bound: str, suite: Suite, shared: Shared) -> dict[str, object]:
    """The certified accuracy on the suite's test images, in percent: a lower bound of any robust accuracy there."""
    split = choose_images(suite, shared)
    classifier = load_model(model, shared.checkpoint_dir, classes=split.classes)
    proven = BOUNDS[bound](classifier, split.x, split.y, suite.threat.epsilon)
    accuracy = round(100 * proven.double().mean().item(), 4)
    return {"bound": bound, "epsilon": suite.threat.epsilon, "accuracy": accuracy, "n": len(split)}


def _command(defense: str, suite: str, recipe: str, overrides: Sequence[str], name: str, shared: Shared) -> str:
    """The command that trains the same again, wherever its files lie."""
    words = ["train", "--defense", defense, "--suite", suite, "--recipe", recipe]
    words += [word for override in overrides for word in ("--set", override)]
    chosen = {"--precision": shared.precision, "--workers": shared.workers}
    words += [word for option, value in chosen.items() if value != "auto" for word in (option, value)]
    return shlex.join(["python", "run_benchmark.py", *words, "--name", name, "--seed", str(shared.seed)])


def _training_images(suite: Suite, settings: Recipe, shared: Shared) -> tuple[Split, Split]:
    """Images to train on, and to choose the best epoch by; both from the training part."""
    split = load_images(suite.dataset, "train", shared)
    images, validation = holdout(split, settings.validation, seed=shared.seed)
    if settings.train_examples is not None:
        if settings.train_examples > len(images):
            raise InputError(
                f"--set train_examples={settings.train_examples}: {suite.dataset} has {len(images)} images to train on "
                "beside those for validation; name fewer, or leave it out"
            )
        images = balanced_subset(images, settings.train_examples, seed=shared.seed)
    return images, validation
