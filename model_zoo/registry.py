"""Every model that the harness knows: authors' checkpoints in a table, all others by the card beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attacks.names import by_name, lookup
from model_zoo.authors import AUTHORS
from model_zoo.card import read_card
from model_zoo.defenses.registry import DEFENSES
from model_zoo.files.atomic import sha256_of
from model_zoo.model_spec import ModelSpec
from model_zoo.weights.checkpoint import LAST

SHIPPED = Path(__file__).parent / "checkpoints"
"""Where the checkpoints lie that come with the harness."""

DATASETS = ("digits", "mnist", "cifar10")
"""Of the shipped models, in display order."""
OF_LAST = "-last"
"""Behind the name of a model: after the last epoch, where the name alone means the best one."""


def _shipped() -> list[ModelSpec]:
    """The models that come with the harness, by dataset and in the order of the defenses."""
    defenses = list(DEFENSES)
    specs = [read_card(path) for path in SHIPPED.glob("*/*.json")]
    return sorted(specs, key=lambda spec: (DATASETS.index(spec.dataset), defenses.index(spec.defense), spec.name))


def distinct(specs: Sequence[ModelSpec]) -> Sequence[ModelSpec]:
    """The same models. Raises: InputError where two models of one suite have the same name."""
    for suite in dict.fromkeys(suite for spec in specs for suite in spec.suites):
        by_name((spec for spec in specs if suite in spec.suites), f"model of suite {suite}")
    return specs


MODELS: Sequence[ModelSpec] = distinct((*_shipped(), *(ModelSpec(**fields) for fields in AUTHORS)))


def models_of(suite: str, checkpoint_dir: Path) -> dict[str, ModelSpec]:
    """The models of a suite by name: registered ones, then those trained into `checkpoint_dir`.

    A model trained by the user stands in for a registered one of the same name.
    """
    specs = {spec.name: spec for spec in MODELS if suite in spec.suites}
    for path in sorted((checkpoint_dir / suite).glob("*.json")):
        spec = read_card(path)
        specs[spec.name] = spec
    return specs


def model_spec(name: str, suite: str, checkpoint_dir: Path) -> ModelSpec:
    """The model of that name. Raises: InputError that names the nearest match."""
    return lookup(name, models_of(suite, checkpoint_dir), f"model of suite {suite}")


def after_last_epoch(name: str, known: Mapping[str, ModelSpec], checkpoint_dir: Path) -> ModelSpec | None:
    """The model NAME-last: NAME by its weights after the last epoch. None where it was not trained in this folder."""
    best = known.get(name.removesuffix(OF_LAST))
    if best is None or not name.endswith(OF_LAST):
        return None
    checkpoint = best.checkpoint.removesuffix(".safetensors") + LAST
    path = checkpoint_dir / checkpoint
    return replace(best, name=name, checkpoint=checkpoint, sha256=sha256_of(path)) if path.is_file() else None
