"""How a model of the gate is recorded anew: the command, as the user would give it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.cli.options import OwnData, OwnModel, Shared
from model_zoo.model_spec import ModelSpec


def renewals(
    baseline: Path, specs: Sequence[ModelSpec], own: OwnModel, own_data: OwnData, shared: Shared
) -> dict[str, str]:
    """By model, the command that records it anew.

    Args:
        own: of the first model, where it is given.
    """
    usual, where = Shared(), []
    for name in ("data_dir", "checkpoint_dir", "mirror_dir", "classes"):
        value = getattr(shared, name)
        where += [f"--{name.replace('_', '-')}", str(value)] if value != getattr(usual, name) else []
    size = own_data.image_size and ":".join(map(str, own_data.image_size))
    brought = {"data": own_data.data, "image-size": size, "channels": own_data.channels}
    where += _words({**brought, "skip-broken": own_data.skip_broken})
    words = ["python", "run_benchmark.py", "gate", "update", "--baseline", str(baseline)]
    commands = {}
    for at, spec in enumerate(specs):
        what = _own(own) if own.is_given and not at else ["--models", spec.name]
        command = shlex.join([*words, *what, *where])
        is_file = not spec.code and Path(spec.checkpoint).is_absolute()  # NAME=FILE
        first = f"with {spec.checkpoint} and its card in --checkpoint-dir, " if is_file else ""
        commands[spec.name] = first + command
    return commands


def _own(own: OwnModel) -> list[str]:
    values = {"model": own.model, "checkpoint": own.checkpoint, "output": own.output, "name": own.known_as}
    flags = {"--trust-code": own.trust_code, "--rejects": own.rejects}
    return [*_words({**values, "mean": own.mean, "std": own.std}), *(name for name, given in flags.items() if given)]


def _words(values: Mapping[str, object]) -> list[str]:
    """Options with their values, those that are given."""
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]
