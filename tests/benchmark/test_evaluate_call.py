"""`evaluate(...)`: one call from Python, with the command line's numbers."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from attacks import attack
from attacks.errors import InputError
from attacks.models.modes import frozen
from attacks.registry import attack_spec
from benchmark import Report, evaluate
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from model_zoo.load import load_model
from model_zoo.registry import model_spec
from model_zoo.user_models.factory import call_factory

Command = Callable[..., subprocess.CompletedProcess[str]]
HERE = Path()
ATTACKS = ["pgd-20", "foolbox-deepfool", "square-500"]
ZOO = Path(__file__).parent / "cli/user_models.py"


def made(kind: str) -> nn.Module:
    """A model of `user_models.py`."""
    return frozen(call_factory(f"{ZOO}:{kind}"))


@pytest.fixture(scope="module")
def madry() -> nn.Module:
    return load_model(model_spec("madry", "digits", HERE), HERE, classes=10)


@pytest.fixture(scope="module")
def images() -> Split:
    return balanced_subset(load("digits", "test", data_dir=HERE), 40, seed=0)


def test_numbers_are_those_of_the_command_line(madry: nn.Module, command: Command, tmp_path: Path) -> None:
    split = load("digits", "test", data_dir=HERE)
    report = evaluate(madry, split.x, split.y, attacks=ATTACKS, epsilon=0.2, quiet=True)
    words = ("--models", "madry", "--attacks", ",".join(ATTACKS), "--transfer", "none", "--quiet")
    done = command(tmp_path, *words, "--results-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "digits/scores.csv").set_index("attack")
    board = pd.read_csv(tmp_path / "digits/leaderboard.csv").iloc[0]
    frame = report.to_frame().set_index("attack")
    for column in ("n", "clean_acc", "robust_acc", "ci_low", "ci_high", "forwards_per_image", "backwards_per_image"):
        assert list(frame[column]) == pytest.approx(list(scores.loc[ATTACKS, column]), abs=1e-4), column
    assert report.worst_case == pytest.approx(board["worst case"], abs=1e-4)
    assert report.interval["pgd-20"] == pytest.approx(tuple(scores.loc["pgd-20", ["ci_low", "ci_high"]]), abs=1e-4)


def test_numbers_of_a_subset_are_those_of_the_command_line_by_its_index(
    madry: nn.Module, images: Split, command: Command, tmp_path: Path
) -> None:
    words = ("--models", "madry", "--attacks", "pgd-20", "--examples", "40", "--transfer", "none", "--quiet")
    done = command(tmp_path, *words, "--results-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs/cases").glob("*/*.parquet")
    stored = pd.read_parquet(path)
    report = evaluate(madry, images.x, images.y, index=images.index, attacks=["pgd-20"], epsilon=0.2, quiet=True)
    found = report.verdicts["pgd-20"]
    assert list(found.index) == list(stored["index"])
    assert list(found.forwards) == list(stored["forwards"])
    assert list(found.robust_any) == list(stored["robust_any"])
    result = attack(madry, images.x, images.y, "pgd-20", index=images.index, epsilon=0.2)
    assert result.forwards.tolist() == list(stored["forwards"])


ASKED = [
    ({"precision": "bf16"}, ["--precision", "bf16"], ["pgd-20"]),
    ({"seed": 3}, ["--seed", "3"], ["pgd-20", "foolbox-deepfool"]),
    ({"judge_draws": 3, "eot": 2, "kind": "noisy"}, ["--judge-draws", "3", "--eot", "2"], ["fgsm", "foolbox-deepfool"]),
    ({"kind": "own_generator"}, [], ["fgsm"]),
    ({"source": "natural"}, ["--transfer", "mi-fgsm"], ["mi-fgsm"]),
]
"""Arguments of the call (`kind` is a model of `user_models.py`), the same on the command line, and the attacks."""


@pytest.mark.parametrize(("asked", "words", "attacks"), ASKED, ids=["precision", "seed", "passes", "draws", "source"])
def test_both_calls_give_the_rows_of_the_command_line_chunk_by_chunk(
    asked: dict[str, Any], words: list[str], attacks: list[str], command: Command, tmp_path: Path
) -> None:
    settings = dict(asked)
    kind, source = settings.pop("kind", "plain"), settings.pop("source", "")
    model, split = made(kind), balanced_subset(load("digits", "test", data_dir=HERE), 260, seed=asked.get("seed", 0))
    own = ["--model", f"{ZOO}:{kind}", "--epsilon", 0.1, "--examples", 260, "--batch-size", 250, "--workers", 1]
    crossed = [] if source else ["--transfer", "none"]
    done = command(tmp_path, *own, "--attacks", ",".join(attacks), *words, *crossed, "--quiet")
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "results/mine/digits/scores.csv", keep_default_na=False).set_index(
        ["attack", "source_model"]
    )
    of_all = ["robust_acc", "forwards_per_image", "backwards_per_image"]
    if source:
        settings["source"] = load_model(model_spec(source, "digits", HERE), HERE, classes=10)
    for name in attacks:
        index = split.index
        result = attack(model, split.x, split.y, name, epsilon=0.1, index=index, batch_size=250, **settings)
        found = [result.robust_acc, result.forwards.mean().item(), result.backwards.mean().item()]
        assert found == pytest.approx(list(rows.loc[(name, source), of_all].astype(float)), abs=1e-4), name
    if not source:
        report = evaluate(
            *(model, split.x, split.y),
            epsilon=0.1,
            index=split.index,
            attacks=attacks,
            batch_size=250,
            quiet=True,
            **settings,
        )
        frame = report.to_frame().set_index("attack")[of_all]
        for name in attacks:
            assert list(frame.loc[name]) == pytest.approx(list(rows.loc[(name, ""), of_all].astype(float)), abs=1e-4)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_scale_of_the_logits_is_no_defence(norm: str, images: Split) -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.net, self.scale = made("plain"), scale

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.scale * self.net(x)
            return logits

    epsilon = {"Linf": 0.2, "L2": 0.7}[norm]
    plain, steep = (
        attack(Scaled(scale).eval(), images.x, images.y, "pgd-20", norm=norm, epsilon=epsilon) for scale in (1.0, 60.0)
    )
    assert 20 < plain.robust_acc < 80
    assert abs(steep.robust_acc - plain.robust_acc) <= 5.0  # two images of forty: saturated logits climb another way


def test_a_model_that_changes_its_images_behind_autograds_back_changes_no_image_of_ours(images: Split) -> None:
    x = images.x.clone()
    pure, salting = (attack(made(kind), x, images.y, "pgd-20", epsilon=0.2) for kind in ("salted", "salting"))
    assert torch.equal(x, images.x)
    assert torch.equal(pure.robust, salting.robust)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
@pytest.mark.parametrize(
    "kind", ["squeezing", "fixed64", "double", "reentrant", "spiking", "forgetting", "in_place", "viewing", "exported"]
)
def test_a_model_of_odd_manners_gets_the_verdicts_of_its_twin(kind: str, images: Split) -> None:
    results = [attack(made(one), images.x, images.y, "pgd-20", epsilon=0.2) for one in ("plain", kind)]
    reports = [
        evaluate(made(one), images.x, images.y, epsilon=0.2, attacks=["pgd-20"], quiet=True) for one in ("plain", kind)
    ]
    for twins in (results, [report.verdicts["pgd-20"] for report in reports]):
        plain, odd = twins
        assert np.array_equal(plain.forwards, odd.forwards)
    assert torch.equal(results[0].robust, results[1].robust)
    assert reports[0].robust_acc == reports[1].robust_acc
    assert 0 < results[0].robust_acc < results[0].clean_acc


def test_a_model_that_changed_is_another_one_wherever_the_change_lies(images: Split, tmp_path: Path) -> None:
    class Greying(nn.Module):
        """Holds what it does as a plain number, and does it to black pixels alone."""

        def __init__(self, level: float) -> None:
            super().__init__()
            self.net, self.level = made("plain"), level

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(torch.where(x <= self.level, 0.5, x))
            return logits

    def clean(model: nn.Module, **kept: Any) -> float:
        return evaluate(model, images.x, images.y, epsilon=0.1, attacks=["fgsm"], quiet=True, **kept).clean_acc

    for level in (-1.0, 0.0):
        assert clean(Greying(level).eval(), store=tmp_path) == clean(Greying(level).eval())
    assert clean(made("refusing_noise"), store=tmp_path) == clean(made("plain"))


def test_a_report_shows_what_its_attacks_show_together(madry: nn.Module, images: Split) -> None:
    weak = attack_spec("pgd-40").with_settings(name="mine", steps=30, rel_step_size=1e-6)
    query = attack_spec("square").with_settings(name="ours", steps=300)
    report = evaluate(madry, images.x, images.y, attacks=["fgsm", weak, query], epsilon=0.3, quiet=True)
    raised = [flag.partition("(")[0] for flag in report.flags]
    assert raised == ["black-box-beats-gradients", "one-step-beats-iterative"]


def test_flags_are_of_this_calls_attacks(madry: nn.Module, images: Split, tmp_path: Path) -> None:
    weak = attack_spec("pgd-20").with_settings(name="pgd-40-x10", steps=1, rel_step_size=1e-6)
    strong = ["pgd-40", "square-500"]
    evaluate(madry, images.x, images.y, attacks=[*strong, weak], epsilon=0.3, store=tmp_path, quiet=True)
    alone = evaluate(madry, images.x, images.y, attacks=[weak], epsilon=0.3, store=tmp_path, quiet=True)
    assert alone.flags == []


def test_the_worst_case_is_over_all_attacks_image_by_image(madry: nn.Module, images: Split) -> None:
    report = evaluate(madry, images.x, images.y, attacks=ATTACKS, epsilon=0.2, quiet=True)
    worst = np.logical_and.reduce([verdicts.robust_any for verdicts in report.verdicts.values()])
    assert (report.n, report.worst_case) == (40, 100 * worst.mean())
    assert report.worst_case <= min(report.robust_acc.values())
    for name, verdicts in report.verdicts.items():
        classes = attack(madry, images.x, images.y, name, epsilon=0.2).adversarial_class.numpy()
        np.testing.assert_array_equal(np.asarray(verdicts.adversarial_class), classes)
        np.testing.assert_array_equal(classes >= 0, verdicts.correct & ~verdicts.robust_any)


def test_a_data_set_and_a_data_loader_give_the_same(madry: nn.Module, images: Split) -> None:
    def robust(*data: Any) -> list[bool]:
        report = evaluate(madry, *data, attacks=["pgd-20"], epsilon=0.2, quiet=True)
        return list(report.verdicts["pgd-20"].robust_any)

    dataset = TensorDataset(images.x, images.y)
    assert robust(images.x, images.y) == robust(dataset) == robust(DataLoader(dataset, batch_size=7))


def test_what_a_store_has_is_not_computed_again(
    madry: nn.Module, images: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(attacks: list[str]) -> Report:
        return evaluate(madry, images.x, images.y, attacks=attacks, epsilon=0.2, store=tmp_path / "runs", quiet=True)

    first = run(["pgd-20"])
    run(["pgd-20", "fgsm"])
    monkeypatch.setattr("benchmark.sweep.compute.evaluate_chunk", None)
    again = run(["pgd-20", "fgsm"])
    assert again.robust_acc["pgd-20"] == first.robust_acc["pgd-20"]
    with pytest.raises(TypeError):
        run(["mi-fgsm"])


def test_the_model_is_left_as_it_was_and_other_weights_are_another_model(images: Split, tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    y = one(images.x).argmax(1)
    other = copy.deepcopy(one)
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    for model in (one, other):
        evaluate(model, images.x, y, attacks=["fgsm"], epsilon=0.01, store=tmp_path, quiet=True)
    assert len(list((tmp_path / "cases").iterdir())) == 2
    assert all(parameter.requires_grad and parameter.grad is None for parameter in one.parameters())
    assert not one.training


def test_caveats_of_a_model_are_flags_of_its_report(madry: nn.Module, images: Split) -> None:
    class Probabilities(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            probabilities: Tensor = madry(x).softmax(1)
            return probabilities

    report = evaluate(Probabilities().eval(), images.x, images.y, attacks=["fgsm"], epsilon=0.2, quiet=True)
    assert "probabilities" in report.flags
    assert evaluate(madry, images.x, images.y, attacks=["fgsm"], epsilon=0.2, quiet=True).flags == []


def test_logits_that_stand_inside_of_what_a_model_returns_are_named(madry: nn.Module, images: Split) -> None:
    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": x.sum(), "logits": madry(x)}

    plain = evaluate(madry, images.x, images.y, attacks=["fgsm"], epsilon=0.2, quiet=True)
    named = evaluate(Wrapped().eval(), images.x, images.y, attacks=["fgsm"], epsilon=0.2, output="logits", quiet=True)
    assert named.robust_acc == plain.robust_acc
    with pytest.raises(InputError, match="logits"):
        evaluate(Wrapped().eval(), images.x, images.y, attacks=["fgsm"], epsilon=0.2, quiet=True)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"attacks": []}, "expected one attack at least"),
        ({"attacks": ["fgsm", "fgsm"]}, "each of another name"),
        ({"eot": -3}, "eot must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"name": 3}, "name must be"),
        ({"name": "../a/b"}, "name must be"),
        ({"x": iter([]), "y": None}, "a dataset with a length"),
        ({"x": [torch.zeros(1, 8, 8)], "y": None}, r"expected pairs \(image, label\)"),
        ({"y": None, "x": [({}, 1)]}, "images as tensors, got dict"),
        ({"y": None, "x": [(torch.zeros(1, 8, 8), "one")]}, "a whole number as each label"),
        ({"y": None, "x": [(torch.zeros(1, 8, 8), 0), (torch.zeros(1, 9, 9), 0)]}, "images of one shape"),
        ({"attacks": ["pgd-2O"]}, "pgd-20"),
        ({"attacks": ["cw-linf"], "norm": "L2"}, "is defined for Linf"),
        ({"epsilon": 8.0}, "epsilon"),
        ({"y": None}, "expected labels y"),
        ({"x": torch.zeros(40, 8, 8)}, r"expected float images \(N, C, H, W\)"),
        ({"x": torch.full((40, 1, 8, 8), 16.0)}, "divide by 255"),
        ({"x": [], "y": None}, "empty"),
        ({"x": [("image", 1)], "y": None}, "ToTensor"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(
    wrong: dict[str, Any], words: str, madry: nn.Module, images: Split
) -> None:
    given = {"x": images.x, "y": images.y, "attacks": ["fgsm"], "epsilon": 0.2, **wrong}
    with pytest.raises(InputError, match=words) as raised:
        evaluate(madry, given.pop("x"), given.pop("y"), **given, quiet=True)
    assert "\n" not in str(raised.value)


def test_a_store_that_cannot_be_written_to_is_named(madry: nn.Module, images: Split, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a folder that can be written to"):
        evaluate(madry, images.x, images.y, attacks="fgsm", epsilon=0.2, store=tmp_path / "file", quiet=True)


def test_images_of_one_class_and_a_single_image_are_evaluated(madry: nn.Module, images: Split) -> None:
    ones = images.y == 1
    report = evaluate(madry, images.x[ones], images.y[ones], attacks="fgsm", epsilon=0.2, quiet=True)
    assert report.n == int(ones.sum())
    right = images.x[madry(images.x).argmax(1) == images.y][:1]
    single = evaluate(madry, right, madry(right).argmax(1), attacks="fgsm", epsilon=0.0, quiet=True)
    assert (single.n, single.robust_acc["fgsm"]) == (1, 100.0)


def test_one_attack_under_two_settings_has_two_names(madry: nn.Module, images: Split) -> None:
    short = attack_spec("pgd-20").with_settings(name="pgd-3", steps=3)
    report = evaluate(madry, images.x, images.y, attacks=["pgd-20", short], epsilon=0.2, quiet=True)
    assert report.robust_acc["pgd-3"] >= report.robust_acc["pgd-20"]
    assert len(repr(report)) < 500


class Undone(nn.Module):
    """A model behind what undoes a normalisation by mean 0.5 and std 0.25."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(0.25 * x + 0.5)
        return logits


def test_a_normalisation_that_is_given_stands_in_front_and_is_part_of_the_identity(
    madry: nn.Module, images: Split, tmp_path: Path
) -> None:
    known: dict[str, Any] = {"attacks": "pgd-20", "epsilon": 0.2, "quiet": True, "store": tmp_path}
    plain = evaluate(madry, images.x, images.y, **known)
    undone = frozen(Undone(madry))
    assert evaluate(undone, images.x, images.y, **known).robust_acc != plain.robust_acc
    assert evaluate(undone, images.x, images.y, mean=0.5, std=[0.25], **known).robust_acc == plain.robust_acc
    with pytest.raises(InputError, match="expected 1 value of mean and std"):
        evaluate(undone, images.x, images.y, mean="imagenet", **known)
