"""Authors' checkpoints: files as they save them are loaded into the networks that the registry names for them."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from attacks.errors import InputError
from benchmark.data.split import Split
from model_zoo.architectures.registry import build
from model_zoo.architectures.wide_resnet import WideResNet
from model_zoo.authors import AUTHORS, CONVERTS, PACKAGES
from model_zoo.files.atomic import sha256_of
from model_zoo.load import find_checkpoint, identified, load_model, robustbench_model
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import MODELS

BY_NAME = {spec.name: spec for spec in MODELS}
NAMES = [str(fields["name"]) for fields in AUTHORS]
NORMALISED = "preact-resnet-18+cifar10-norm"


def test_the_papers_that_the_tables_stand_beside_have_their_checkpoints_registered() -> None:
    defenses = {BY_NAME[name].defense for name in NAMES}
    assert defenses >= {"trades", "fat", "fat-trades", "gairat", "gair-rst", "mart", "rst", "fast"}


@pytest.mark.parametrize("name", [name for name in NAMES if BY_NAME[name].checkpoint.split("/")[0] not in PACKAGES])
def test_an_authors_checkpoint_that_is_not_here_is_one_line_with_its_page(name: str, tmp_path: Path) -> None:
    spec = BY_NAME[name]
    with pytest.raises(InputError) as caught:
        find_checkpoint(spec, tmp_path)
    assert spec.url in str(caught.value)
    assert str(tmp_path / spec.checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_an_installed_package_needs_no_download(tmp_path: Path, cifar10: Split) -> None:
    model = load_model(BY_NAME["natural-croce2020"], tmp_path, classes=10)
    with torch.no_grad():
        right = model(cifar10.x[:200]).argmax(1) == cifar10.y[:200]
    assert right.float().mean() > 0.9


def test_a_file_that_its_page_gives_no_name_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its page gives it no file name"):
        find_checkpoint(BY_NAME["rst-carmon2019"], tmp_path)


@pytest.mark.parametrize("name", ["fat-zhang2020", "trades-cifar10-zhang2019", "rst-carmon2019"])
def test_a_wide_resnet_of_its_authors_loads_with_its_prefix_and_its_unused_group(name: str, tmp_path: Path) -> None:
    theirs = WideResNet(10, 1, 10, sub_block1=True).eval()  # a small one: the keys are the same
    content = {"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}, "epoch": 76}
    spec = replace(BY_NAME[name], architecture="wrn-10-1")
    torch.save(content, tmp_path / spec.checkpoint)
    ours, x = load_model(spec, tmp_path, classes=10), torch.rand(2, 3, 32, 32)
    assert torch.equal(ours(x), theirs(x))


def test_fast_at_is_normalised_inside_the_model_and_widened_from_half_precision(tmp_path: Path) -> None:
    theirs = build("preact-resnet-18").eval()
    spec = BY_NAME["fast-cifar10-wong2020"]
    (tmp_path / spec.checkpoint).parent.mkdir()
    half = {name: value.half() if value.is_floating_point() else value for name, value in theirs.state_dict().items()}
    torch.save(half, tmp_path / spec.checkpoint)
    ours, x = load_model(spec, tmp_path, classes=10), torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
    std = torch.tensor([0.2471, 0.2435, 0.2616]).view(1, 3, 1, 1)
    theirs.load_state_dict(
        {name: value.float() if value.dtype == torch.half else value for name, value in half.items()}
    )
    assert all(value.dtype != torch.half for value in ours.state_dict().values())
    torch.testing.assert_close(ours(x), theirs((x - mean) / std))


def test_a_normalised_network_has_the_others_weights_and_no_more() -> None:
    weights = build("preact-resnet-18").state_dict()
    assert set(CONVERTS["behind-normalisation"](weights)) == set(build(NORMALISED).state_dict())


def test_a_checkpoint_whose_sha256_nobody_published_is_identified_by_the_file_that_is_here(tmp_path: Path) -> None:
    spec = replace(BY_NAME["fat-zhang2020"], architecture="wrn-10-1")
    torch.save(WideResNet(10, 1, 10).state_dict(), tmp_path / spec.checkpoint)
    known = identified(spec, tmp_path)
    assert known.sha256 == sha256_of(tmp_path / spec.checkpoint)
    assert known.identity["checkpoint_sha256"] == known.sha256
    assert identified(known, tmp_path) == known


# RobustBench, a stand-in for the package: it is optional, and its models come from a network


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A package that knows one model; what it was asked for."""
    asked: list[dict[str, str]] = []

    def load(**words: str) -> nn.Module:
        asked.append(words)
        if words["model_name"] != "Known2020Model":
            raise KeyError(words["model_name"])
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    package = ModuleType("robustbench")
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.utils", SimpleNamespace(load_model=load))
    monkeypatch.setattr("model_zoo.robustbench_adapter.metadata.version", lambda _: "1.1")
    return asked


def robust(name: str, folder: Path) -> ModelSpec:
    return robustbench_model(f"robustbench/{name}", folder, dataset="cifar10", norm="Linf", suite="cifar10")


def test_a_robustbench_model_is_had_by_its_id(robustbench: list[dict[str, str]], tmp_path: Path) -> None:
    spec = robust("Known2020Model", tmp_path)
    assert (spec.name, spec.network) == ("Known2020Model", "robustbench/Known2020Model")
    assert len(spec.sha256) == 64
    assert robustbench[0] == {
        "model_name": "Known2020Model",
        "dataset": "cifar10",
        "threat_model": "Linf",
        "model_dir": str(tmp_path / "robustbench"),
    }
    model = load_model(spec, tmp_path, classes=10)
    assert not model.training
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.usefixtures("robustbench")
def test_an_id_that_robustbench_does_not_know_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="robustbench/Unknown: RobustBench has no such model of cifar10 under Linf"):
        robust("Unknown", tmp_path)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "robustbench", None)
    monkeypatch.delitem(sys.modules, "robustbench.utils", raising=False)
    with pytest.raises(InputError, match="needs the package robustbench; install it from https:"):
        robust("Carmon2019Unlabeled", tmp_path)
