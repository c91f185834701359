"""The substitute attack: labels alone are asked for, as many as the recipe says, and the examples transfer."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from benchmark.cli.app import cli
from model_zoo.training.substitute import SubstituteRecipe, augmented, train_substitute


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def test_the_images_double_each_round_until_a_reservoir_is_drawn() -> None:
    assert SubstituteRecipe(rounds=6).label_count(150) == 150 * 2**5
    few = SubstituteRecipe(rounds=6, reservoir=100, reservoir_after=3)
    assert few.label_count(150) == 150 * 2**3 + 2 * 100


def test_the_step_changes_its_sign_after_a_period() -> None:
    steps = [SubstituteRecipe(period=3).signed_step(round_) for round_ in range(7)]
    assert steps == [0.1, 0.1, 0.1, -0.1, -0.1, -0.1, 0.1]
    assert SubstituteRecipe(period=0).signed_step(5) == 0.1


def test_an_augmented_image_moves_along_the_sign_of_its_labels_jacobian() -> None:
    network = linear(0).double()
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0])
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x).softmax(1), x)
    own = torch.stack([jacobian[i, y[i], i] for i in range(4)])
    assert torch.allclose(augmented(network, x, y, -0.1), (x - 0.1 * own.sign()).clamp(0, 1))


@pytest.mark.parametrize("reservoir", [0, 40])
def test_it_learns_the_models_labels_and_asks_for_no_more_than_it_says(reservoir: int) -> None:
    oracle, asked = linear(5).eval(), []

    def labels(x: Tensor) -> Tensor:
        asked.append(len(x))
        with torch.no_grad():
            answer: Tensor = oracle(x).argmax(1)
        return answer

    recipe = SubstituteRecipe(rounds=5, epochs=20, lr=0.01, reservoir=reservoir, reservoir_after=1)
    x = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    network = linear(1)
    seen, y = train_substitute(network, labels, x, recipe, seed=0)
    assert sum(asked) == len(seen) == len(y) == recipe.label_count(30)
    fresh = torch.rand(500, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    before, after = ((one(fresh).argmax(1) == labels(fresh)).double().mean() for one in (linear(1), network))
    assert after > 0.85 > before
    again = linear(1)
    train_substitute(again, labels, x, recipe, seed=0)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rounds": 0}, "rounds must be at least 1"), ({"step": 8}, "pixel"), ({"lr": 0}, "lr must be positive")],
)
def test_a_recipe_that_trains_nothing_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SubstituteRecipe(**settings)


def test_the_command_trains_one_that_transfer_attacks_are_crafted_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--checkpoint-dir", str(tmp_path / "checkpoints")]
    short = ["--set", "rounds=3", "--set", "epochs=30", "--examples", "100"]
    cli(["substitute", "--models", "natural", *short, *folders], standalone_mode=False)
    assert "Trained substitute-of-natural on 400 labels of natural" in capsys.readouterr().out
    words = ["--models", "natural", "--sources", "substitute-of-natural", "--transfer", "fgsm", "--attacks", "fgsm"]
    few = ["--examples", "100", "--workers", "1", "--quiet", "--results-dir", str(tmp_path / "results")]
    cli([*words, *few, *folders], standalone_mode=False)
    table = (tmp_path / "results/digits/black_box.csv").read_text().splitlines()
    attack, source, robust = table[1].split(",")
    assert (attack, source) == ("fgsm", "substitute-of-natural")
    assert float(robust) < 70
    wrong = {"trained already": [], "KEY=VALUE": ["--set", "rounds"], "must be a int": ["--set", "rounds=many"]}
    for message, more in wrong.items():
        with pytest.raises(InputError, match=message):
            cli(["substitute", "--models", "natural", *short, *folders, *more], standalone_mode=False)


def test_a_model_of_ones_own_has_a_substitute_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "mine.py"
    program.write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    folders = ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--dataset", "digits"]
    short = ["--set", "rounds=2", "--set", "epochs=1", "--examples", "20", "--name", "copy"]
    cli(["substitute", "--model", f"{program}:make", *short, *folders], standalone_mode=False)
    said = capsys.readouterr().out
    assert "Trained copy on 40 labels of make" in said
    assert f"run_benchmark.py --suite digits --model {program}:make --sources copy --transfer fgsm" in said
    record = json.loads((tmp_path / "checkpoints/digits/copy.json").read_text())
    assert f"substitute --model {program}:make --suite digits" in json.dumps(record)
    for words in ([], ["--models", "natural,madry"], ["--models", "natural", "--model", f"{program}:make"]):
        with pytest.raises(InputError, match="expected one model"):
            cli(["substitute", *words, *short, *folders], standalone_mode=False)
