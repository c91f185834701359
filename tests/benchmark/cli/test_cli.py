"""The command line as a user types it: a mistake is one line and exit code 2, and a model of one's own just runs."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torchvision

from attacks.registry import ATTACKS, FAMILIES
from benchmark.data.datasets import DATASETS
from benchmark.suites.registry import SUITES
from model_zoo.card import card
from model_zoo.defenses.registry import DEFENSES
from model_zoo.registry import MODELS, SHIPPED
from model_zoo.weights.checkpoint import load_state_dict

Command = Callable[..., subprocess.CompletedProcess[str]]
FAST = ("--attacks", "fgsm", "--examples", "20", "--transfer", "none", "--quiet")
MINE = """
import torch
from functools import partial
from torch import nn
from model_zoo.architectures.digits_cnn import DigitsCNN

def factory():
    return DigitsCNN()

def nan():
    model = DigitsCNN()
    nn.init.constant_(model.fc2.bias, float("nan"))
    return model

def binary():
    return DigitsCNN(2)

def detached():
    class Detached(DigitsCNN):
        def forward(self, x):
            return super().forward(x.detach())

    return Detached()

def colour():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))

def needs_arguments(depth):
    return DigitsCNN(depth)

def no_module():
    return "a model"

def constant():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)  # always class 0, a tenth of the images
    return model

def raises():
    raise ValueError("first\\nsecond")

ten = partial(DigitsCNN, 10)
number = 3
"""


class RunsCode:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("it-ran",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: code in mine.py, and files that are or claim to be weights."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def factory(:\n")
    (tmp_path / "raises.py").write_text("raise KeyError('first\\nsecond')\n")
    weights = load_state_dict(SHIPPED / "digits/madry.safetensors")
    torch.save(weights, tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "truncated.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    torch.save({name: value for name, value in weights.items() if "fc2" not in name}, tmp_path / "other.pt")
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"weight": RunsCode()}))
    (tmp_path / "a-file").write_text("no folder")
    return tmp_path


def mistake(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a mistake answers with."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    assert result.stderr.startswith("error: ")
    return result.stderr


MISTAKES = {
    "comparison elsewhere": ("compare --attacks fgsm --against pgd-20 --name ../x", "--name must be letters, digits"),
    "speed elsewhere": ("speed --name a/b", "--name must be letters, digits"),
    "unknown model": ("--models natral", "unknown model of suite digits 'natral'; did you mean 'natural'?"),
    "unknown attack": ("--attacks pdg-20", "unknown attack 'pdg-20'; did you mean 'pgd-20'"),
    "unknown transfer attack": ("--transfer mi-fgms", "did you mean 'mi-fgsm'?"),
    "unknown suite": ("--suite digit", "unknown suite 'digit'; did you mean 'digits'?"),
    "unknown dataset": ("--model mine.py:factory --dataset digit", "unknown dataset 'digit'; did you mean 'digits'?"),
    "unknown defense": ("train --defense trade", "unknown defense 'trade'; did you mean 'trades'?"),
    "unknown setting": ("train --defense trades --set bta=6", "did you mean 'beta'?"),
    "unknown option": ("--attack pgd-20", "No such option '--attack'"),
    "unknown command": ("tabel", "tabel"),
    "unknown list": ("list modls", "No such command 'modls'. Did you mean 'models'?"),
    "nothing to list": (
        "list",
        "list: expected one of attacks, datasets, defenses, models, studies, suites behind it, got nothing",
    ),
    "no names": ("--attacks ,", "expected names separated by commas"),
    "epsilon in grey levels": ("--epsilon 8", "got 8.0; did you mean 8/255?"),
    "negative epsilon": ("--epsilon -0.1", "epsilon must be in [0, 1]"),
    "epsilon in words": ("--epsilon big", "expected a number or a fraction such as 8/255"),
    "endless epsilon": ("--epsilon 1e999", "epsilon"),
    "division by zero": ("--epsilon 8/0", "expected a number or a fraction"),
    "unknown norm": ("--norm L7", "'Linf', 'L2', 'L1'"),
    "attack of another norm": ("--norm L2 --epsilon 1 --attacks cw-linf", "attack cw-linf is defined for Linf, got L2"),
    "norm without its epsilon": ("--norm L2", "--norm L2 needs --epsilon: that of suite digits is for Linf"),
    "model without a gradient": ("--model mine.py:detached", "its logits have no gradient"),
    "no examples": ("--examples 0", "expected all or a positive whole number, got '0'"),
    "examples in words": ("--examples few", "expected all or a positive whole number, got 'few'"),
    "examples of no attack": ("--examples 10,pdg-20=5", "unknown attack, before the = of --examples 'pdg-20'"),
    "results in a file": ("--results-dir mine.py", "is a file"),
    "batch of none": ("--batch-size 0", "--batch-size must be auto or a positive whole number, got '0'"),
    "batch beyond counting": (
        "--batch-size 99999999999999999999",
        "--batch-size must be auto or a positive whole number",
    ),
    "less than no GPU": ("--executor ray --gpus-per-worker -1", "--gpus-per-worker must be 0 or more"),
    "all and others": ("--models all,natural", "'all' stands alone"),
    "batch in words": ("--batch-size many", "got 'many'"),
    "batch of a strange digit": ("--batch-size ²", "got '²'"),
    "negative seed": ("--seed -1", "--seed"),
    "option before the command": ("--seed 1 table", "--seed stands before 'table'; options go behind it"),
    "flag before the command": ("--quiet list models", "--quiet stands before 'list'"),
    "suite of another dataset": ("--suite mnist --dataset digits", "leave one of them out"),
    "checkpoint without a model": ("--checkpoint good.pt", "--checkpoint needs --model"),
    "no model here": ("--suite svhn", "has no model with a checkpoint"),
    "results are a file": (f"--models natural --results-dir a-file {' '.join(FAST)}", "a-file"),
    "results below a file": (f"--models natural --results-dir a-file/x {' '.join(FAST)}", "a-file"),
    "no verdicts": ("table --results-dir elsewhere", "expected verdicts in elsewhere/runs, found none"),
    "no pair": ("train --defense trades --set beta", "--set takes KEY=VALUE, got 'beta'"),
    "beta that is no number": (
        "train --defense trades --set beta=nan",
        "--set beta must be a finite number, got 'nan'",
    ),
    "beta below zero": ("train --defense trades --set beta=-6", "--set beta must be at least 0, got -6"),
    "too many images": ("train --defense natural --set train_examples=1000000", "digits has 1097 images to train on"),
    "no epoch of the source": ("train --defense rst --set source_epochs=0", "source_epochs must be at least 1, got 0"),
    "a name that is taken": (
        "train --defense natural --name foo-last",
        "a name that ends in -last is that of the last epoch",
    ),
    "alpha that is no number": ("gate --baseline b.json --alpha nan", "expected a finite number, got 'nan'"),
    "threshold that is no number": ("gate --baseline b.json --min-robust-acc nan", "expected a finite number, got"),
    "an epsilon too large to write": ("--epsilon 1e999999999", "expected a number or a fraction such as 8/255"),
    "beta in words": ("train --defense trades --set beta=big", "--set beta must be a finite number, got 'big'"),
    "epochs in words": ("train --defense trades --set epochs=1.5", "--set epochs must be int, got '1.5'"),
    "no epochs": ("train --defense natural --set epochs=0", "epochs"),
    "empty batches": ("train --defense natural --set batch_size=0", "batch_size"),
    "negative rate": ("train --defense natural --set lr=-1", "lr"),
    "negative decay": ("train --defense natural --set weight_decay=-1", "weight_decay"),
    "negative steps": ("train --defense natural --set inner_steps=-1", "inner_steps"),
    "unknown augmentation": ("train --defense natural --set augmentation=flip", "crop-flip"),
    "compare with nothing": ("compare --attacks pgd-20", "--against"),
    "compare an attack with itself": ("compare --attacks pgd-20 --against pgd-20", "an attack agrees with itself"),
    "compare an unknown attack": ("compare --attacks bogus --against pgd-20", "unknown attack 'bogus'"),
    "compare uneven numbers": ("compare --attacks pgd-20,fgsm,mi-fgsm --against pgd-40,pgd-100", "got 2 for 3"),
    "compare without verdicts": (
        "compare --attacks pgd-20 --against fgsm --results-dir nowhere",
        "found no such folder",
    ),
    "unknown contest": ("speed --contests chess", "unknown contest 'chess'"),
    "two models in speed": ("speed --models natural,madry", "speed measures one model"),
    "trust in code that runs anyway": (
        "--model mine.py:factory --checkpoint good.pt --trust-code",
        "--trust-code is for a --checkpoint that is a program, got --model mine.py:factory",
    ),
    "no workers": ("--workers 0", "--workers must be auto or a positive whole number"),
    "sources of nothing": ("--transfer none --sources natural", "--sources is for transfer attacks, and none runs"),
    "examples of what does not run": (
        "--attacks fgsm --transfer none --examples 40,square=20",
        "--examples square=20: square does not run",
    ),
    "no such mirror": ("--mirror-dir nowhere", "'--mirror-dir': Directory 'nowhere' does not exist"),
    "attacks of a folder": ("list attacks --checkpoint-dir .", "No such option '--checkpoint-dir'"),
    "a name of a registered model": ("--models natural --name mine", "--name is for your own model"),
    "a name that leads elsewhere": ("--model mine.py:factory --name ../x", "--name must be letters"),
    "an unknown source": ("--models natural --sources madri", "did you mean 'madry'?"),
    "no source but the model itself": ("--models natural --sources natural", "expected a model beside the one"),
    "a fraction of nothing": ("--epsilon 8/0", "expected a number or a fraction such as 8/255"),
    "two fractions": ("--epsilon 8/2/255", "expected a number or a fraction such as 8/255"),
    "unknown optimizer": ("train --defense natural --set optimizer=lion", "sgd, sgd-nesterov, adam"),
    "unknown architecture": ("train --defense natural --set architecture=digits", "did you mean 'digits-cnn'?"),
    "recipe of another dataset": ("train --defense natural --recipe cpu", "'cpu' is for cifar10"),
    "architecture of other images": ("train --defense natural --set architecture=resnet-18", "(3, 32, 32)"),
    "trained against grey levels": ("train --defense natural --set epsilon=8", "did you mean 8/255?"),
    "all images held out": ("train --defense natural --set validation=1297", "a holdout must leave images"),
    "no such file": ("--model nowhere.py:factory", "expected a Python file at nowhere.py, found none"),
    "no such module": ("--model no.such.module:factory", "module 'no.such.module' cannot be imported"),
    "no factory": ("--model mine.py", "--model must be PATH.py:FUNCTION or module:FUNCTION, got 'mine.py'"),
    "unknown factory": ("--model mine.py:factori", "did you mean 'factory'?"),
    "factory is a number": ("--model mine.py:number", "unknown function in mine.py 'number'"),
    "factory with arguments": ("--model mine.py:needs_arguments", "needs_arguments"),
    "factory of no module": ("--model mine.py:no_module", "to return a torch.nn.Module, got str"),
    "file with a syntax error": ("--model broken.py:factory", "broken.py cannot be imported: SyntaxError"),
    "file that raises": ("--model raises.py:factory", "raises.py cannot be imported: KeyError"),
    "module that is broken": ("--model broken:factory", "module 'broken' cannot be imported"),
    "NaN model": ("--model mine.py:nan", "expected finite logits"),
    "model at chance": ("--model mine.py:constant --dataset digits", "always naming one class would get 51"),
    "factory that raises": ("--model mine.py:raises", "the factory failed: ValueError: first second"),
    "wrong classes": ("--model mine.py:binary", "expected logits of shape (64, 10)"),
    "wrong channels": ("--model mine.py:colour", "cannot take digits images of shape (64, 1, 8, 8)"),
    "checkpoint missing": ("--model mine.py:factory --checkpoint none.pt", "none.pt, found none"),
    "checkpoint truncated": ("--model mine.py:factory --checkpoint truncated.pt", "truncated or damaged file"),
    "checkpoint a web page": ("--model mine.py:factory --checkpoint page.pt", "what looks like a web page"),
    "checkpoint of another": (
        "--model mine.py:factory --checkpoint other.pt",
        "got others: 2 missing keys",
    ),
    "checkpoint with code": (
        "--model mine.py:factory --checkpoint code.pt",
        "refused because it is damaged or wants to run code",
    ),
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_that_names_it(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    monkeypatch.syspath_prepend(folder)
    line = mistake(command(folder, *words.split()))
    assert expected in line
    assert not (folder / "it-ran").exists()
    assert not list(folder.rglob("*.parquet"))


@pytest.mark.parametrize("words", ["--batch-siz 0", "--model mine.py:factory --checkpoint code.pt"])
def test_a_mistake_ends_the_process_with_one_line_and_code_two(process: Command, folder: Path, words: str) -> None:
    mistake(process(folder, *words.split()))
    assert not (folder / "it-ran").exists()


def test_a_folder_without_the_data_names_it_and_the_remedy(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoNetwork:
        def __init__(self, _root: Path, **_which: object) -> None:
            raise RuntimeError("no network here")

    monkeypatch.setattr(torchvision.datasets, "MNIST", NoNetwork)
    (tmp_path / "model_mnist_smallcnn.pt").write_bytes(b"")
    words = ("--suite", "mnist", "--models", "trades-mnist-zhang2019", "--checkpoint-dir", ".", "--data-dir", "empty")
    line = mistake(command(tmp_path, *words))
    assert "empty/mnist/test" in line
    assert "--data-dir" in line
    assert not (tmp_path / "empty").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, so asking for it is no mistake")
def test_asking_for_a_cuda_device_where_there_is_none_is_a_mistake(command: Command, tmp_path: Path) -> None:
    assert "--device cuda: this machine has no usable CUDA" in mistake(command(tmp_path, "--device", "cuda"))


def test_an_interrupt_says_that_nothing_is_lost(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmark.sweep.compute.evaluate_chunk", interrupted)
    result = command(tmp_path, "--models", "natural", *FAST)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr.strip().startswith("error: interrupted; whatever was stored is kept")


# What works


def test_ones_own_model_is_evaluated_without_registration(process: Command, folder: Path) -> None:
    words = "--model mine.py:factory --checkpoint good.pt --dataset digits --epsilon 0.2 --attacks pgd-20 --examples 40"
    result = process(folder, *words.split())
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("digits: digits, Linf 0.2, 40 test images")
    (row,) = (line.split("|") for line in result.stdout.splitlines() if "| factory |" in line)
    assert float(row[3]) > 90
    assert 30 < float(row[4]) < 90
    assert {path.name for path in (folder / "results/mine/digits").iterdir()} >= {"scores.csv", "leaderboard.md"}


def test_ones_own_model_gets_the_verdicts_of_the_same_weights_under_a_registered_name(
    command: Command, folder: Path
) -> None:
    assert command(folder, "--model", "mine.py:factory", "--checkpoint", "good.pt", *FAST).returncode == 0
    assert command(folder, "--models", "madry", *FAST).returncode == 0
    mine, theirs = (row.split(",") for row in rows(folder))
    assert {mine[2], theirs[2]} == {"factory", "madry"}
    assert mine[11:16] == theirs[11:16]  # the accuracies and the interval
    assert mine[5] != theirs[5]  # another file, hence another hash


def rows(folder: Path) -> list[str]:
    return (folder / "results/mine/digits/scores.csv").read_text().splitlines()[1:]


def test_a_factory_in_a_module_works_as_well_as_one_in_a_file(command: Command, folder: Path) -> None:
    place = "model_zoo.architectures.digits_cnn:DigitsCNN"
    result = command(folder, "--model", place, "--checkpoint", "good.pt", *FAST)
    assert result.returncode == 0, result.stderr
    assert "| DigitsCNN |" in result.stdout


def test_ones_own_model_has_the_name_that_is_given(command: Command, folder: Path) -> None:
    result = command(folder, "--model", "mine.py:factory", "--checkpoint", "good.pt", "--name", "v2", *FAST)
    assert result.returncode == 0, result.stderr
    assert [row.split(",")[2] for row in rows(folder)] == ["v2"]


def test_a_factory_may_be_any_callable(command: Command, folder: Path) -> None:
    result = command(folder, "--model", "mine.py:ten", "--checkpoint", "good.pt", *FAST)
    assert result.returncode == 0, result.stderr
    assert "| ten " in result.stdout


def test_models_in_files_of_the_same_name_are_different_models(command: Command, tmp_path: Path) -> None:
    clean = {}
    for name in ("natural", "madry"):
        (tmp_path / name).mkdir()
        path = SHIPPED / f"digits/{name}.safetensors"
        (tmp_path / name / "mine.py").write_text(
            "from pathlib import Path\n"
            "import model_zoo.architectures.digits_cnn as d, model_zoo.weights.checkpoint as c\n"
            f"def factory():\n    model = d.DigitsCNN()\n"
            f"    model.load_state_dict(c.load_state_dict(Path({str(path)!r})))\n    return model\n"
        )
        result = command(tmp_path, "--model", f"{name}/mine.py:factory", *FAST)
        assert result.returncode == 0, result.stderr
        (row,) = rows(tmp_path)  # under one name only the newest is shown
        clean[name] = row.split(",")[12]
    assert clean["natural"] != clean["madry"]
    assert len(list(tmp_path.rglob("case.json"))) == 2


@pytest.mark.parametrize(("text", "epsilon"), [("8/255", 8 / 255), ("0.5/255", 0.5 / 255)])
def test_a_fraction_of_255_is_an_epsilon(command: Command, tmp_path: Path, text: str, epsilon: float) -> None:
    assert command(tmp_path, "--models", "madry", "--epsilon", text, *FAST).returncode == 0
    (row,) = rows(tmp_path)
    assert float(row.split(",")[7]) == epsilon


def test_sources_alone_ask_for_transfer_whether_they_are_attacked_or_not(command: Command, tmp_path: Path) -> None:
    words = ("--models", "natural", "--attacks", "fgsm", "--sources", "madry", "--examples", "20", "--quiet")
    result = command(tmp_path, *words)
    assert result.returncode == 0, result.stderr
    cells = [row.split(",") for row in rows(tmp_path)]
    assert [(cell[2], cell[8], cell[9]) for cell in cells] == [("natural", "fgsm", ""), ("natural", "fgsm", "madry")]


def test_all_leaves_out_what_has_no_checkpoint_and_says_so(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = replace(MODELS[0], name="lacking", checkpoint="digits/lacking.safetensors")
    monkeypatch.setattr("model_zoo.registry.MODELS", (MODELS[0], lacking))
    result = command(tmp_path, "--models", "all", *FAST)
    assert result.returncode == 0
    assert result.stderr.startswith("left out: model lacking: expected its checkpoint at checkpoints/digits/lacking")
    assert [row.split(",")[2] for row in rows(tmp_path)] == ["natural"]


def add_twin_of_madry(folder: Path) -> None:
    """A model `mine` of the user's with the weights of a registered one."""
    (madry,) = (spec for spec in MODELS if spec.checkpoint == "digits/madry.safetensors")
    (folder / "digits").mkdir(parents=True)
    shutil.copy(SHIPPED / madry.checkpoint, folder / "digits/mine.safetensors")
    own = replace(madry, name="mine", checkpoint="digits/mine.safetensors")
    (folder / "digits/mine.json").write_bytes(card(own, {}))


def test_a_model_with_the_weights_of_another_is_left_out_of_the_tables_and_named(
    command: Command, tmp_path: Path
) -> None:
    add_twin_of_madry(tmp_path / "checkpoints")
    result = command(tmp_path, "--models", "madry,mine,natural", *FAST)
    assert result.returncode == 0
    assert result.stderr == "note: mine has the weights of madry, and is left out\n"
    assert {row.split(",")[2] for row in rows(tmp_path)} == {"madry", "natural"}


def test_the_gate_leaves_no_model_out(command: Command, tmp_path: Path) -> None:
    add_twin_of_madry(tmp_path / "checkpoints")
    words = ("gate", "update", "--baseline", "b.json", "--models", "madry,mine", "--examples", "20", "--quiet")
    result = command(tmp_path, *words, "--attack", "fgsm", "--canaries", "none")
    assert result.returncode == 2
    assert "madry and mine are one network with the same weights; leave one out" in result.stderr


def test_the_same_command_again_prints_the_same_and_needs_no_model(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = command(tmp_path, "--models", "natural", *FAST)
    monkeypatch.setattr("benchmark.sweep.prepare.load_model", None)
    assert command(tmp_path, "--models", "natural", *FAST).stdout == first.stdout


def test_what_is_shown_of_a_run_of_ones_own_model_is_short_and_plain(command: Command, folder: Path) -> None:
    words = "--model mine.py:factory --checkpoint good.pt --dataset digits --attacks fgsm,pgd-20 --examples 20"
    result = command(folder, *words.split())
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(
        "factory under fgsm, pgd-20: digits, Linf 0.2, 20 images; 3 cases, 0 stored; cpu, fp32"
    )
    assert "40 of 60 images" in result.stderr
    assert "60 of 60 images" in result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert "Not measured here" not in result.stdout
    assert "  leaderboard.md " in result.stdout
    again = command(folder, *words.split())
    assert " ".join(again.stderr.split()).endswith("3 cases, 3 stored; nothing is to be computed")


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("models", [spec.name for suite in SUITES for spec in MODELS if spec.suites[0] == suite]),
        ("attacks", [*ATTACKS, *(f"{family}-N" for family in FAMILIES)]),
        ("defenses", list(DEFENSES)),
        ("datasets", list(DATASETS)),
        ("suites", list(SUITES)),
    ],
)
def test_list_prints_a_line_for_everything_registered(
    command: Command, tmp_path: Path, what: str, names: list[str]
) -> None:
    result = command(tmp_path, "list", what)
    assert (result.returncode, result.stderr) == (0, "")
    head, _rule, *lines = result.stdout.splitlines()
    assert head.startswith(what.removesuffix("s"))
    assert [line.split()[0] for line in lines] == names


def test_help_names_every_command(command: Command, tmp_path: Path) -> None:
    result = command(tmp_path, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(f"\n  {name} " in result.stdout for name in ("list", "table", "train"))


def test_the_versions_that_can_move_a_number_are_recorded(command: Command, tmp_path: Path) -> None:
    assert command(tmp_path, "--models", "natural", *FAST).returncode == 0
    assert f"torch={version('torch')} " in (tmp_path / "results/mine/digits/timing.csv").read_text()
