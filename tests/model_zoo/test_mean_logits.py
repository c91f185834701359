from pathlib import Path

import pytest
import torch

from attacks.errors import InputError
from attacks.registry import ATTACKS
from benchmark.cli.app import cli
from benchmark.data.datasets import load
from benchmark.suites.grid import cases
from benchmark.suites.models import models_for
from benchmark.suites.registry import SUITES
from model_zoo.load import load_model
from model_zoo.mean_logits import mean_of
from model_zoo.model_spec import ModelSpec


@pytest.fixture(scope="module")
def specs() -> dict[str, ModelSpec]:
    return models_for("digits", Path("nowhere"))


def test_its_logits_are_the_mean_of_its_members(specs: dict[str, ModelSpec]) -> None:
    members = [specs["natural"], specs["madry"]]
    x = torch.rand(3, 1, 8, 8)
    mean, *own = (load_model(spec, Path("nowhere"), classes=10)(x) for spec in (mean_of(members), *members))
    assert torch.allclose(mean, (own[0] + own[1]) / 2, atol=1e-5)


def test_its_identity_is_that_of_its_members_in_order(specs: dict[str, ModelSpec]) -> None:
    first, second, third = (specs[name] for name in ("natural", "madry", "fat"))
    identities = [mean_of(pair).identity for pair in ([first, second], [second, first], [first, third])]
    assert all(identities.count(identity) == 1 for identity in identities)
    assert first.sha256 in str(identities[0])


def test_one_model_twice_is_refused(specs: dict[str, ModelSpec]) -> None:
    with pytest.raises(InputError, match=r"natural\+natural: expected different models"):
        mean_of([specs["natural"], specs["natural"]])


def test_nothing_is_transferred_to_a_member(specs: dict[str, ModelSpec]) -> None:
    targets = [specs[name] for name in ("natural", "madry", "fat")]
    split = load("digits", "test", data_dir=Path("nowhere"))
    grid = cases(SUITES["digits"], targets, [], [ATTACKS["pgd-20"]], split, seed=0, sources=[mean_of(targets[:2])])
    assert [case.cell for case in grid] == [("fat", "pgd-20", "natural+madry")]


def test_the_command_line_crafts_on_the_mean(tmp_path: Path) -> None:
    words = ["--models", "fat", "--sources", "natural+madry,natural", "--transfer", "mi-sgm,vmi-fgsm"]
    with pytest.raises(InputError, match="expected a network with residual blocks"):
        _run(tmp_path, words)
    words[-1] = "vmi-fgsm"
    _run(tmp_path, words)
    rows = [line.split(",") for line in (tmp_path / "digits/scores.csv").read_text().splitlines()]
    sources = [row[rows[0].index("source_model")] for row in rows[1:]]
    assert sorted(filter(None, sources)) == ["natural", "natural+madry"]


def _run(folder: Path, words: list[str]) -> None:
    few = ["--attacks", "fgsm", "--examples", "20", "--workers", "1", "--quiet", "--results-dir", str(folder)]
    cli([*words, *few], standalone_mode=False)
