"""Adaptive attacks and other losses: on the command line and from Python, as cases of their own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from attacks import attack
from attacks.bpda import Bpda
from attacks.errors import InputError
from attacks.registry import ATTACKS
from benchmark import evaluate
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from model_zoo.load import load_model
from model_zoo.registry import model_spec

Command = Callable[..., subprocess.CompletedProcess[str]]
HERE = Path()
MASKS = Path(__file__).resolve().parents[2] / "programs/masks.py"
SURROGATES = """
from attacks.bpda import Bpda


def straight(model):
    return Bpda(model, model.net)

def nothing(model):
    return None

def cut(model):
    import torch
    class Cut(torch.nn.Module):
        def forward(self, x):
            return model(x.detach())
    return Cut()
"""


@pytest.fixture
def surrogates(tmp_path: Path) -> Path:
    file = tmp_path / "surrogates.py"
    file.write_text(SURROGATES)
    return file


def scores(folder: Path, suite: str = "digits") -> pd.DataFrame:
    return pd.read_csv(folder / f"results/mine/{suite}/scores.csv", keep_default_na=False)


FEW = ("--examples", "30", "--workers", "1", "--quiet")


def test_an_adaptive_attack_on_a_masked_model_is_white_box_and_counts_in_the_worst_case(
    command: Command, tmp_path: Path
) -> None:
    words = ("--suite", "digits-masked", "--models", "thermometer-16,natural", "--attacks", "fgsm,pgd-100", *FEW)
    done = command(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    table = scores(tmp_path, "digits-masked").set_index(["model", "attack"])
    robust = table["robust_acc"]
    assert robust["thermometer-16", "pgd-100 adaptive"] < 10 < 80 < robust["thermometer-16", "pgd-100"]
    assert set(table["source_model"]) == {""}
    board = pd.read_csv(tmp_path / "results/mine/digits-masked/leaderboard.csv", keep_default_na=False)
    board = board.set_index("model")
    assert board["worst case"]["thermometer-16"] == float(board["pgd-100 adaptive"]["thermometer-16"])
    assert "fewer-attacks" not in board["flags"]["natural"]
    assert ("natural", "pgd-100 adaptive") not in robust


def test_without_adaptive_attacks_there_are_none(command: Command, tmp_path: Path) -> None:
    words = ("--suite", "digits-masked", "--models", "thermometer-16", "--attacks", "fgsm,pgd-100", *FEW)
    assert command(tmp_path, *words, "--adaptive", "none").returncode == 0
    assert list(scores(tmp_path, "digits-masked")["attack"]) == ["fgsm", "pgd-100"]


def test_a_users_surrogate_of_a_users_model_breaks_what_the_model_hides(
    command: Command, tmp_path: Path, surrogates: Path
) -> None:
    words = ("--model", f"{MASKS}:rounding", "--attacks", "pgd-20", "--transfer", "none", *FEW)
    done = command(tmp_path, *words, "--adaptive", f"{surrogates}:straight")
    assert done.returncode == 0, done.stderr
    robust = scores(tmp_path).set_index("attack")["robust_acc"]
    assert robust["pgd-20 adaptive"] < 40 < robust["pgd-20"]


def test_a_changed_surrogate_is_computed_again_and_the_same_is_not(command: Command, tmp_path: Path) -> None:
    words = ("--model", f"{MASKS}:rounding", "--attacks", "fgsm", "--transfer", "none", *FEW)
    keys: list[set[str]] = []
    for text in (SURROGATES, SURROGATES, SURROGATES + "# changed\n"):
        file = tmp_path / f"s{len(keys)}" / "surrogates.py"
        file.parent.mkdir()
        file.write_text(text)
        assert command(tmp_path, *words, "--adaptive", f"{file}:straight").returncode == 0
        keys.append({path.name for path in (tmp_path / "results/mine/runs/cases").iterdir()})
    assert len(keys[0]) == 2
    assert keys[0] == keys[1]
    assert len(keys[2]) == 3


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nothing", "expected the function to return a torch.nn.Module, got NoneType"),
        ("cut", "no gradient"),
        ("strait", "did you mean 'straight'"),
    ],
)
def test_a_surrogate_that_cannot_be_used_is_one_line(
    command: Command, tmp_path: Path, surrogates: Path, function: str, said: str
) -> None:
    words = ("--model", f"{MASKS}:rounding", "--attacks", "fgsm", *FEW)
    done = command(tmp_path, *words, "--adaptive", f"{surrogates}:{function}")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_another_loss_is_another_case_under_a_name_that_says_so(command: Command, tmp_path: Path) -> None:
    words = ("--models", "natural", "--attacks", "pgd-20,square-500", "--transfer", "none", *FEW)
    assert command(tmp_path, *words, "--loss", "margin").returncode == 0
    assert list(scores(tmp_path)["attack"]) == ["pgd-20-margin"]
    for loss, said in (("hinge", "unknown loss"), ("dlr-targeted", "expected an attack that can climb it")):
        done = command(tmp_path, *words, "--loss", loss)
        assert (done.returncode, said in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def images() -> Split:
    return balanced_subset(load("digits", "test", data_dir=HERE), 30, seed=0)


class Rounding(nn.Module):
    """The undefended model behind two grey levels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = load_model(model_spec("natural", "digits", HERE), HERE, classes=10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.round())
        return logits


def straight(model: nn.Module) -> nn.Module:
    assert isinstance(model, Rounding)
    return Bpda(model, model.net)


def test_evaluate_takes_a_surrogate_and_a_loss(images: Split) -> None:
    report = evaluate(
        Rounding().eval(), images.x, images.y, epsilon=0.3, attacks=["pgd-20"], adaptive=straight, quiet=True
    )
    assert set(report.robust_acc) == {"pgd-20", "pgd-20 adaptive"}
    assert report.worst_case <= report.robust_acc["pgd-20 adaptive"] < report.robust_acc["pgd-20"]
    report = evaluate(Rounding().eval(), images.x, images.y, epsilon=0.3, attacks=["pgd-20"], loss="dlr", quiet=True)
    assert list(report.robust_acc) == ["pgd-20-dlr"]


def test_evaluate_leaves_the_model_as_it_was(images: Split) -> None:
    model = Rounding().eval().requires_grad_(True)
    evaluate(model, images.x, images.y, epsilon=0.1, attacks=["fgsm"], adaptive=straight, quiet=True)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    with pytest.raises(InputError, match=r"expected a function that returns a torch\.nn\.Module, got str"):
        evaluate(model, images.x, images.y, epsilon=0.1, attacks=["fgsm"], adaptive=lambda _: "x", quiet=True)  # type: ignore[arg-type,return-value]


def test_attack_climbs_the_loss_that_is_named(images: Split) -> None:
    model = load_model(model_spec("natural", "digits", HERE), HERE, classes=10)
    named = attack(model, images.x, images.y, "pgd-20", epsilon=0.1, loss="margin")
    spec = ATTACKS["pgd-20"].with_settings(loss="margin")
    assert torch.equal(named.x_adv, attack(model, images.x, images.y, spec, epsilon=0.1).x_adv)
    with pytest.raises(InputError, match="attack square cannot climb the loss 'margin'"):
        attack(model, images.x, images.y, "square", epsilon=0.1, loss="margin")
