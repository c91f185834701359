"""Classical techniques: the module answers as scikit-learn does, from a checkpoint of arrays."""

import json
import re
from pathlib import Path

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from attacks import attack
from attacks.errors import InputError
from benchmark.cli.app import cli
from benchmark.data.datasets import load
from benchmark.data.split import disjoint_part
from model_zoo.architectures.registry import build
from model_zoo.architectures.techniques import DecisionTree, NearestNeighbours
from model_zoo.load import load_model
from model_zoo.registry import model_spec
from model_zoo.training.techniques import TECHNIQUES, fit_technique
from model_zoo.tree_attack import to_another_leaf

NAMES = list(TECHNIQUES)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    split = load("digits", "train", data_dir=Path())
    return split.x, split.y


@pytest.fixture(scope="module")
def unseen() -> tuple[Tensor, Tensor]:
    split = load("digits", "test", data_dir=Path())
    return split.x[:200], split.y[:200]


def fitted(name: str, images: tuple[Tensor, Tensor]) -> torch.nn.Module:
    model = build(TECHNIQUES[name].architecture("digits", len(images[0]))).eval()
    model.load_state_dict(dict(fit_technique(name, *images, classes=10, seed=0)))
    return model


def test_a_tree_and_its_neighbours_answer_as_scikit_learns_do(
    images: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]
) -> None:
    (x, y), (asked, _) = (part for part in (images, unseen))
    arrays = x.flatten(1).numpy(), y.numpy()
    tree = DecisionTreeClassifier(max_leaf_nodes=4096, random_state=0).fit(*arrays)
    nearest = KNeighborsClassifier(5, algorithm="brute").fit((arrays[0] * 255).round() / 255, arrays[1])
    points = asked.flatten(1).numpy()
    assert fitted("decision-tree", images)(asked).argmax(1).tolist() == tree.predict(points).tolist()
    agree = fitted("nearest-neighbours", images)(asked).argmax(1).numpy() == nearest.predict(points)
    assert agree.mean() >= 0.995  # neighbours at the same distance come in any order


@pytest.mark.parametrize(("name", "least"), [(name, 75 if name == "decision-tree" else 88) for name in NAMES])
def test_what_is_fitted_classifies(
    name: str, least: float, images: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]
) -> None:
    x, y = unseen
    assert 100 * (fitted(name, images)(x).argmax(1) == y).double().mean().item() > least


@pytest.mark.parametrize("name", NAMES)
def test_linear_models_have_a_gradient_and_of_the_others_an_attack_says_that_they_have_none(
    name: str, images: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]
) -> None:
    model, (x, y) = fitted(name, images), unseen
    if name in ("logistic-regression", "linear-svm"):
        assert attack(model, x[:50], y[:50], "fgsm", epsilon=0.3).robust_acc < 30
        return
    with pytest.raises(InputError, match="have no gradient with respect to the image"):
        attack(model, x[:50], y[:50], "fgsm", epsilon=0.2)
    assert attack(model, x[:20], y[:20], "square-50", epsilon=0.3).robust_acc < 100


def test_the_smoothed_neighbours_are_a_vote_of_all_images_that_tends_to_the_nearest_ones(
    images: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]
) -> None:
    model = fitted("nearest-neighbours", images)
    assert isinstance(model, NearestNeighbours)
    model.k = 1
    x = unseen[0].clone().requires_grad_()
    sharp = model.smoothed(x, temperature=1e-3)
    assert (sharp.argmax(1) == model(unseen[0]).argmax(1)).float().mean() >= 0.99
    assert torch.allclose(sharp.exp().sum(1), torch.ones(len(x)).double())
    (gradient,) = torch.autograd.grad(model.smoothed(x, temperature=1.0).sum(), x)
    assert (gradient != 0).any()


def test_the_tree_attack_ends_at_a_leaf_of_another_class_by_few_pixels(
    images: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor]
) -> None:
    tree, (x, _) = fitted("decision-tree", images), unseen
    assert isinstance(tree, DecisionTree)
    before = tree(x).argmax(1)
    x_adv = to_another_leaf(tree, x, before)
    changed = (x_adv != x).flatten(1).sum(1)
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert (tree(x_adv).argmax(1) != before).all()
    assert 1 <= int(changed.min()) <= int(changed.float().mean()) <= 5


def test_a_tree_of_one_class_has_no_other_leaf_to_go_to() -> None:
    tree = DecisionTree(2, 3)
    tree.pixel[0], tree.threshold[0], tree.left[0], tree.right[0] = 0, 0.5, 1, 2
    tree.share[:] = torch.tensor([1.0, 0.0])
    x = torch.rand(4, 1, 2, 2)
    assert torch.equal(to_another_leaf(tree, x, torch.zeros(4, dtype=torch.int64)), x)


def test_parts_are_disjoint_and_are_all_of_the_images() -> None:
    split = load("digits", "train", data_dir=Path())
    parts = [set(disjoint_part(split, part, 5).index.tolist()) for part in range(1, 6)]
    assert set.union(*parts) == set(split.index.tolist())
    assert sum(map(len, parts)) == len(split)


@pytest.mark.parametrize("name", ["linear-svm", "nearest-neighbours"])
def test_the_command_fits_a_model_that_the_suite_knows_and_that_can_be_attacked(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--checkpoint-dir", str(tmp_path / "checkpoints")]
    cli(["fit", "--technique", name, "--part", "2/3", "--examples", "300", *folders], standalone_mode=False)
    assert re.search(rf"Fitted {name} to 300 images of digits: \d\d\.\d% of 500", capsys.readouterr().out)
    card = json.loads((tmp_path / f"checkpoints/digits/{name}.json").read_bytes())
    assert card["model"]["defense"] == name
    spec = model_spec(name, "digits", tmp_path / "checkpoints")
    assert load_model(spec, tmp_path / "checkpoints", classes=10)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    words = ["--models", name, "--transfer", "none", "--attacks", "rays-100,square-100", "--examples", "20"]
    more = ["--workers", "1", "--quiet", "--results-dir", str(tmp_path / "results")]
    cli([*words, *more, *folders], standalone_mode=False)
    assert (tmp_path / "results/digits/queries.csv").read_text().count(name) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--technique", "tree"), "unknown technique 'tree'; known: logistic-regression"),
        (("--technique", "decision-tree", "--part", "6/5"), "--part must be i/n with i from 1 to n"),
        (("--technique", "decision-tree", "--suite", "cifar10"), "fitted to digits and mnist, got cifar10"),
        (("--technique", "decision-tree", "--examples", "3"), "expected images of all 10 classes, got none of"),
    ],
)
def test_what_cannot_be_fitted_is_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        cli(["fit", *words, "--checkpoint-dir", str(tmp_path)], standalone_mode=False)


@pytest.mark.parametrize("architecture", ["digits-logistic", "digits-tree"])
def test_a_substitute_of_a_technique_may_be_a_linear_model_and_no_tree(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--checkpoint-dir", str(tmp_path)]
    cli(["fit", "--technique", "decision-tree", *folders], standalone_mode=False)
    words = ["substitute", "--models", "decision-tree", "--architecture", architecture, "--set", "rounds=2"]
    if architecture == "digits-tree":
        with pytest.raises(InputError, match="is not trained by gradients"):
            cli([*words, *folders], standalone_mode=False)
        return
    cli([*words, *folders], standalone_mode=False)
    assert "Trained substitute-of-decision-tree on 300 labels of decision-tree" in capsys.readouterr().out
