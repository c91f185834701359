"""Which options each command takes: those that have an effect there, and no others."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from benchmark.cli import options
from benchmark.cli.app import cli
from benchmark.cli.options import Shared

Command = Callable[..., subprocess.CompletedProcess[str]]
DATA = {"data-dir", "mirror-dir", "classes"}
ATTACKING = {"device", "precision", "batch-size"}
OWN_MODEL = {"model", "checkpoint", "trust-code", "mean", "std", "output"}
WHICH = {"name", "models", "suite", "attacks", "transfer", "sources", "examples", "judge-draws", "eot", "keep-images"}
COMPARING = {
    "tolerance",
    "min-robust-acc",
    "alpha",
    "miss",
    "budget",
    "undecided",
    "screen",
    "require-shown",
    "junit",
    "sarif",
    "summary",
}
UPDATING = {"suite", "dataset", "attack", "examples", "norm", "epsilon", "canaries", "seed", "tolerance", "alpha"}
GATE = (
    DATA
    | ATTACKING
    | OWN_MODEL
    | {"name", "rejects", "data", "image-size", "channels", "skip-broken"}
    | {"baseline", "models", "checkpoint-dir", "results-dir", "workers", "quiet"}
)
TAKEN = {
    "": WHICH
    | DATA
    | {"data", "image-size", "channels", "skip-broken"}
    | ATTACKING
    | OWN_MODEL
    | {"dataset", "norm", "epsilon", "seed", "checkpoint-dir", "results-dir", "workers", "executor", "gpus-per-worker"}
    | {"adaptive", "loss", "quiet", "rejects"},
    "list": set(),
    "list models": {"checkpoint-dir"},
    "list studies": {"results-dir"},
    "study": {"data-dir", "mirror-dir", "set", "seed", "results-dir", "quiet"},
    **{f"list {what}": set[str]() for what in ("attacks", "defenses", "datasets", "suites")},
    "diagnose": {
        "models",
        "suite",
        "attack",
        "attack-epsilon",
        "examples",
        "norm",
        "epsilon",
        "seed",
        "name",
        "dataset",
        "rejects",
        "hidden",
        "adaptive",
    }
    | DATA
    | ATTACKING
    | OWN_MODEL
    | {"data", "image-size", "channels", "skip-broken", "checkpoint-dir", "results-dir", "workers", "quiet"},
    "certify": {"models", "suite", "method", "examples", "norm", "epsilon", "seed", "name", "dataset", "device"}
    | {"steps", "seconds", "sigma", "n0", "n", "alpha"}
    | DATA
    | OWN_MODEL
    | {"data", "image-size", "channels", "skip-broken", "checkpoint-dir", "results-dir", "workers", "quiet"},
    "corruptions": {"models", "suite", "types", "examples", "seed", "name", "dataset", "device"}
    | DATA
    | OWN_MODEL
    | {"data", "image-size", "channels", "skip-broken", "checkpoint-dir", "results-dir", "quiet"},
    "train": DATA
    | {
        "defense",
        "suite",
        "recipe",
        "set",
        "name",
        "seed",
        "checkpoint-dir",
        "device",
        "precision",
        "workers",
        "quiet",
    },
    "substitute": DATA
    | OWN_MODEL
    | {"models", "suite", "dataset", "architecture", "examples", "set", "name", "seed", "checkpoint-dir", "device"}
    | {"quiet"},
    "fit": DATA | {"technique", "suite", "examples", "part", "name", "seed", "checkpoint-dir", "quiet"},
    "table": {"papers", "results-dir"},
    "push": {"models", "suite", "folder", "results-dir", "checkpoint-dir"},
    "speed": DATA
    | ATTACKING
    | OWN_MODEL
    | {"models", "suite", "contests", "rounds", "examples", "name", "dataset", "norm", "epsilon", "seed"}
    | {"checkpoint-dir", "results-dir", "quiet"},
    "compare": {"suite", "attacks", "against", "against-dir", "name", "results-dir"},
    "union": {"suite", "name", "results-dir"},
    "store": set(),
    "store verify": {"results-dir", "workers", "quiet"},
    "store rejudge": {"results-dir", "checkpoint-dir"},
    "store missing": {"results-dir"},
    "store gc": {"dry-run", "unshown", "results-dir", "quiet"},
    "gate": GATE | COMPARING,
    "gate update": GATE | UPDATING,
}


def commands(command: click.Command = cli, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words."""
    yield name, command
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from commands(below, f"{name} {word}".strip())


def names(command: click.Command) -> set[str]:
    """The options of a command, without their dashes."""
    return {
        word.removeprefix("--") for param in command.params if isinstance(param, click.Option) for word in param.opts
    }


def test_every_command_takes_just_the_options_that_have_an_effect_there() -> None:
    assert {name: names(command) for name, command in commands()} == TAKEN


@pytest.mark.parametrize("name", [name for name in TAKEN if name != "store"])
def test_the_help_of_an_option_is_a_sentence(name: str) -> None:
    command = dict(commands())[name]
    helps = [param.help or "" for param in command.params if isinstance(param, click.Option)]
    sentences = [text.partition("  [default: ")[0] for text in helps]
    assert [text for text in sentences if not (text[:1].isupper() and text.endswith("."))] == []
    context = click.Context(command, info_name=name)
    assert all(f"--{option} " in f"{command.get_help(context)} ".replace("\n", " ") for option in names(command))


GIVEN = {
    "data-dir": "d",
    "mirror-dir": "m",
    "results-dir": "r",
    "checkpoint-dir": "c",
    "classes": "classes.txt",
    "device": "cpu",
    "precision": "fp32",
    "batch-size": "7",
    "workers": "1",
    "executor": "local",
    "gpus-per-worker": "0.5",
    "seed": "1",
    "quiet": None,
}
FEW = "--models natural,madry --attacks fgsm,pgd-20 --transfer none --examples 20 --keep-images"
RUNS = {
    "": FEW,
    "list models": "",
    "train": "--defense natural --set epochs=1 --set train_examples=100 --name mine",
    "table": "",
    "push": "--models madry --folder hub",
    "speed": "--models madry --contests pgd-20 --rounds 1 --examples 10",
    "compare": "--attacks fgsm --against pgd-20",
    "diagnose": "--models natural --attack pgd-20 --examples 8 --hidden 4",
    "store verify": "",
    "store rejudge": "",
    "store missing": "",
    "store gc": "",
    "gate update": "--baseline b.json --models madry --attack fgsm --examples 20 --canaries none",
    "gate": "--baseline b.json",
}
REFUSED_HERE = {"classes", "gpus-per-worker"}
"""What needs class folders, or Ray: refused with digits on this machine."""


def test_no_command_refuses_a_shared_option_that_it_takes_and_each_one_is_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()

    class Watched(Shared):
        def __getattribute__(self, name: str) -> Any:
            if sys._getframe(1).f_globals["__name__"].startswith("benchmark.cli."):
                read.add(name.replace("_", "-"))
            return super().__getattribute__(name)

    monkeypatch.setattr(options, "Shared", Watched)
    (tmp_path / "m").mkdir()  # the mirror
    for name in ("", *(name for name in RUNS if name)):  # the first fills the store that others read
        taken = [option for option in GIVEN if option in TAKEN[name]]
        said = [(f"--{option}", GIVEN[option]) for option in taken if option not in REFUSED_HERE]
        words = [word for pair in said for word in pair if word is not None]
        read.clear()
        result = command(tmp_path, *name.split(), *RUNS[name].split(), *words)
        assert result.returncode == 0, (name, result.stderr)
        own = {"seed"} if name == "gate update" else set()  # the baseline's, no shared one
        assert set(taken) - own - read == set(), name


@pytest.mark.parametrize("name", [name for name in RUNS if name])
def test_a_shared_option_that_a_command_does_not_take_is_one_line(command: Command, tmp_path: Path, name: str) -> None:
    for option in set(GIVEN) - TAKEN[name]:
        value = GIVEN[option]
        result = command(
            tmp_path, *name.split(), *RUNS[name].split(), f"--{option}", *([] if value is None else [value])
        )
        assert (result.returncode, result.stdout) == (2, ""), option
        assert result.stderr.startswith(f"error: No such option '--{option}'.")
        assert result.stderr.endswith(f"See: run_benchmark.py {name} --help\n")
        assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
