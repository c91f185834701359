"""What the substitute command does: a network trained on a model's labels, to craft transfer attacks on."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from attacks.errors import InputError
from attacks.generators import seeded
from attacks.judge import predict
from attacks.names import check_name, lookup
from attacks.number import parse_number
from benchmark.cli.options import OwnModel, Shared
from benchmark.cli.resolve import choose_suite
from benchmark.cli.resolve_hardware import choose_hardware, load_images, use_threads
from benchmark.cli.resolve_models import choose_models
from benchmark.data.split import balanced_subset, holdout
from model_zoo.architectures.registry import build, find
from model_zoo.card import card
from model_zoo.files.atomic import atomic_write, file_of, sha256_of
from model_zoo.load import identified, load_model
from model_zoo.model_spec import ModelSpec
from model_zoo.training.recipes import recipe as recipe_of
from model_zoo.training.substitute import SubstituteRecipe, train_substitute
from model_zoo.weights.checkpoint import save_state_dict

PAPER = "Papernot et al., arXiv:1602.02697"
BATCH = 500


def substitute(
    shared: Shared,
    *,
    models: str | None,
    suite: str | None,
    architecture: str | None,
    examples: int,
    overrides: Sequence[str],
    own: OwnModel,
    dataset: str | None,
    name: str | None,
) -> None:
    """Train a substitute of a model of the suite, or of the user's own, and register it by its card.

    The first images are of those that the suite's recipes hold out for validation under seed 0: no model that was
    trained here by that seed, as the shipped ones were, learnt from them. Authors' own models may have.
    """
    settings = _recipe(overrides)
    chosen = choose_suite(suite, dataset, None, None, None)
    specs = [] if models is None and not own.is_given else choose_models(chosen, models, own, shared)
    if len(specs) != 1:
        named = ", ".join(one.name for one in specs) or "none"
        raise InputError(f"expected one model, by --models NAME or --model PATH.py:FACTORY, got {named}")
    spec = identified(specs[0], shared.checkpoint_dir)
    if spec.rejects:
        raise InputError(f"model {spec.name} may reject images; name a model of classes alone")
    usual = recipe_of("natural", chosen.dataset, "fast")
    network = architecture or usual.architecture
    name = check_name(name or f"substitute-of-{spec.name}", "--name")
    stem = shared.checkpoint_dir / chosen.name / name
    if file_of(stem, ".json").exists():
        raise InputError(f"{file_of(stem, '.json')}: a model of that name is trained already; use another --name")
    split = load_images(chosen.dataset, "train", shared)
    held_out = holdout(split, usual.validation, seed=0)[1]
    if examples > len(held_out):
        raise InputError(f"--examples {examples}: expected at most {len(held_out)}, the images held out, got more")
    if (expected := find(network).input_shape) != (got := tuple(split.x.shape[1:])):
        raise InputError(f"architecture {network} expects images of shape {expected}, got {got}; use another")
    first = balanced_subset(held_out, examples, seed=shared.seed)
    hardware = choose_hardware(shared)
    use_threads(split, hardware)
    model = load_model(spec, shared.checkpoint_dir, classes=split.classes).to(hardware.device)

    def labels(x: Tensor) -> Tensor:
        return predict(model, x, batch_size=BATCH)

    started = time.perf_counter()
    with seeded(shared.seed, "substitute"):
        trained = build(network, split.classes).to(hardware.device)
        if not any(parameter.requires_grad for parameter in trained.parameters()):
            raise InputError(f"--architecture {network} is not trained by gradients; use a network or a linear model")
        x, y = train_substitute(trained, labels, first.x.to(hardware.device), settings, seed=shared.seed)
    seconds = time.perf_counter() - started
    agreement = 100 * (predict(trained, x, batch_size=BATCH) == y).double().mean().item()
    best = file_of(stem, ".safetensors")
    save_state_dict(trained.state_dict(), best, {})
    model_spec = ModelSpec(
        name,
        suites=(chosen.name,),
        dataset=chosen.dataset,
        architecture=network,
        defense="substitute",
        checkpoint=f"{chosen.name}/{name}.safetensors",
        sha256=sha256_of(best),
        paper=PAPER,
    )
    record = {
        "command": _command(shared, _words(own, spec), chosen.name, network, examples, overrides, name),
        "settings": {"of": spec.identity, "examples": examples, **asdict(settings), "seed": shared.seed},
        "labels": len(y),
        "agreement": round(agreement, 4),
        "seconds": round(seconds),
        "versions": {"torch": torch.__version__},
    }
    atomic_write(file_of(stem, ".json"), card(model_spec, record))
    print(f"Trained {name} on {len(y)} labels of {spec.name}: it agrees with {agreement:.1f}% of them.")
    words = ["--suite", chosen.name, *_words(own, spec), "--sources", name, "--transfer", "fgsm"]
    print(f"Attack by it: python run_benchmark.py {shlex.join(words)}")


def _recipe(overrides: Sequence[str]) -> SubstituteRecipe:
    """The usual recipe with some settings replaced, each given as KEY=VALUE."""
    known: Mapping[str, None] = dict.fromkeys(field.name for field in fields(SubstituteRecipe))
    chosen = SubstituteRecipe()
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {override!r}")
        lookup(key, known, "setting")
        kind = type(getattr(chosen, key))
        try:
            number: Any = parse_number(value) if kind is float else int(value)
            chosen = replace(chosen, **{key: number})
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"--set {key} must be a {kind.__name__}, got {value!r}") from None
    return chosen


def _words(own: OwnModel, spec: ModelSpec) -> list[str]:
    """The options that name the model."""
    if not own.is_given:
        return ["--models", spec.name]
    given = {"--model": own.model, "--checkpoint": own.checkpoint, "--output": own.output}
    given |= {"--mean": own.mean, "--std": own.std}
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    return [*words, "--trust-code"] if own.trust_code else words


def _command(
    shared: Shared,
    model: Sequence[str],
    suite: str,
    network: str,
    examples: int,
    overrides: Sequence[str],
    name: str,
) -> str:
    """The command that trains the same again; model: the words that name it."""
    words = ["substitute", *model, "--suite", suite, "--architecture", network, "--examples", str(examples)]
    words += [word for override in overrides for word in ("--set", override)]
    return shlex.join(["python", "run_benchmark.py", *words, "--name", name, "--seed", str(shared.seed)])
