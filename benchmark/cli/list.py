"""What there is to choose from, as text."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from attacks.errors import InputError
from attacks.registry import ATTACKS, FAMILIES
from attacks.spec import Ensemble, Recurrence
from benchmark.data.datasets import DATASETS
from benchmark.suites.registry import SUITES
from benchmark.suites.suite import Suite
from model_zoo.defenses.registry import DEFENSES
from model_zoo.load import find_checkpoint
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import models_of

Rows = list[dict[str, Any]]


def list_table(what: str, checkpoint_dir: Path) -> str:
    """A table of models, attacks, defenses, datasets or suites."""
    return tabulate(LISTS[what](checkpoint_dir), headers="keys", tablefmt="simple")


def _models(checkpoint_dir: Path) -> Rows:
    specs = {
        (name, spec.sha256): spec for suite in SUITES for name, spec in models_of(suite, checkpoint_dir).items()
    }.values()
    return [
        {
            "model": spec.name,
            "suites": " ".join(spec.suites),
            "defense": spec.defense,
            "architecture": spec.architecture,
            "sha256": spec.sha256[:12],
            "paper": spec.paper,
            "here": "yes" if _is_here(spec, checkpoint_dir) else "no",
        }
        for spec in specs
    ]


def _is_here(spec: ModelSpec, checkpoint_dir: Path) -> bool:
    try:
        find_checkpoint(spec, checkpoint_dir)
    except InputError:
        return False
    return True


def _attacks(_: Path) -> Rows:
    return [
        {
            "attack": spec.name,
            "norms": " ".join(spec.norms),
            "steps": spec.steps if isinstance(spec.method, Recurrence) else "",
            "restarts": spec.restarts if isinstance(spec.method, Recurrence) else "",
            "settings": " ".join(member.name for member in spec.method.members)
            if isinstance(spec.method, Ensemble)
            else " ".join(f"{key}={value}" for key, value in spec.all_params.items()),
            "paper": spec.paper,
        }
        for spec in ATTACKS.values()
    ] + [
        {"attack": f"{name}-N", "settings": f"N {family.of}" + f", a multiple of {family.unit}" * (family.unit > 1)}
        for name, family in FAMILIES.items()
    ]


def _defenses(_: Path) -> Rows:
    return [
        {
            "defense": spec.name,
            "parameters": " ".join(f"{name}={value:g}" for name, value in spec.all_params.items()),
            "paper": spec.paper,
            "what": spec.summary,
        }
        for spec in DEFENSES.values()
    ]


def _datasets(_: Path) -> Rows:
    return [
        {
            "dataset": spec.name,
            "classes": spec.classes,
            "shape": "x".join(map(str, spec.shape)),
            "train": spec.train_examples,
            "test": spec.test_examples,
            "source": spec.source,
        }
        for spec in DATASETS.values()
    ]


def _suites(_: Path) -> Rows:
    return [
        {
            "suite": suite.name,
            "dataset": suite.dataset,
            "threat": f"{suite.threat.norm} {suite.threat.epsilon:.6g}",
            "examples": _examples(suite),
            "reads": suite.reading,
            "attacks": " ".join(attack.name for attack in suite.attacks),
            "what": suite.summary,
        }
        for suite in SUITES.values()
    ]


def _examples(suite: Suite) -> str:
    """How many images: of all attacks, then of those that see fewer."""
    return " ".join([str(suite.examples or "all"), *(f"{name}={n}" for name, n in suite.fewer.items())])


LISTS: Mapping[str, Callable[[Path], Rows]] = {
    "models": _models,
    "attacks": _attacks,
    "defenses": _defenses,
    "datasets": _datasets,
    "suites": _suites,
}
