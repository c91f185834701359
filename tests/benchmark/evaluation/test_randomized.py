"""Randomised models: judged by expectation, on final proposals, by draws that belong to the chunk."""

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from attacks.found_points import FoundPoints
from attacks.judge import predict_expected
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, Ensemble
from attacks.threat_model import ThreatModel
from benchmark.cli.rejudge import rejudge_case
from benchmark.data.split import Split
from benchmark.evaluation.evaluate_chunk import evaluate_chunk
from benchmark.evaluation.hardware import Hardware
from benchmark.evaluation.model_checks import check_identity
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key, identity
from model_zoo.model_spec import ModelSpec

Command = Callable[..., subprocess.CompletedProcess[str]]
CPU = Hardware(torch.device("cpu"), torch.float32, 16)
FIXED = ModelSpec(
    "toy", suites=(), dataset="toy", architecture="toy", defense="natural", checkpoint="", sha256="0" * 64
)
SPEC = replace(FIXED, sha256="1" * 64, randomized=True)
N = 40


class Noisy(nn.Module):
    """A network on images plus noise of all three generators."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x) + torch.from_numpy(np.random.randn(*x.shape)).float() + random.random() - 0.5
        logits: Tensor = self.network(x + self.scale * noise)
        return logits


class OftenWrong(nn.Module):
    """Three of twenty passes name the next class, whatever the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 20 * self.network(x)
        wrong = torch.rand(len(x), 1) < 0.15
        return torch.where(wrong, logits.roll(1, 1), logits)


def problem() -> tuple[nn.Module, Split]:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 10)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    network.requires_grad_(False)
    x = 0.2 + 0.6 * torch.rand(N, 1, 4, 4, generator=generator)
    y = network(x).argmax(1)
    y[:3] = (y[:3] + 1) % 10
    return network, Split("toy", "test", x, y, torch.arange(N) + 500, 10)


def case_of(attack: AttackSpec, epsilon: float, *, draws: int = 20, eot: int = 2) -> EvalCase:
    return EvalCase("toy", "toy", "", N, SPEC, SPEC, attack, ThreatModel("Linf", epsilon), 0, draws, eot)


def run(case: EvalCase, model: nn.Module, images: Split, hardware: Hardware = CPU) -> Verdicts:
    return evaluate_chunk([case], model, model, model, images, torch.zeros_like(images.y), hardware)[0]


def short(name: str) -> AttackSpec:
    """At a few of its steps, members of ensembles, too."""
    spec = ATTACKS[name]
    if isinstance(spec.method, Ensemble):
        members = [short(member.name) for member in spec.method.members]
        return replace(spec, method=replace(spec.method, members=members))
    return spec.with_settings(steps=3, restarts=min(spec.restarts, 2))


def assert_same(first: Verdicts, second: Verdicts) -> None:
    for name, column in vars(first).items():
        np.testing.assert_array_equal(column, getattr(second, name), err_msg=name)


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd-20x10", "mi-fgsm", "fab-t", "square", "autoattack-fast", "foolbox-deepfool"]
)
def test_at_epsilon_zero_robust_accuracy_is_clean_accuracy_by_the_same_judge(name: str) -> None:
    network, images = problem()
    verdicts = run(case_of(short(name), 0.0, draws=5), Noisy(network, 0.15), images)
    assert 0 < verdicts.correct.sum() < N - 3
    np.testing.assert_array_equal(verdicts.robust_any, verdicts.correct)
    if verdicts.robust_last is not None:
        np.testing.assert_array_equal(verdicts.robust_last, verdicts.correct)
    assert verdicts.robust_single is not None
    assert not (verdicts.robust_single & ~verdicts.correct).any()


def test_chance_alone_breaks_no_image() -> None:
    """Of twenty queries of an image several are answered wrong, and yet its class is known."""
    network, images = problem()
    model = OftenWrong(network)
    verdicts = run(case_of(ATTACKS["pgd-20"], 1e-6), model, images)
    np.testing.assert_array_equal(verdicts.robust_any, np.arange(N) >= 3)
    by_every_query = replace(case_of(ATTACKS["pgd-20"], 1e-6, draws=0, eot=1), model=FIXED, source=FIXED)
    assert evaluate_chunk([by_every_query], model, model, model, images, images.y, CPU)[0].robust_any.sum() < 0.75 * N
    assert verdicts.robust_single is not None
    assert verdicts.robust_single.sum() < verdicts.robust_any.sum()


def test_a_real_change_of_class_is_found() -> None:
    network, images = problem()
    weak, strong = (run(case_of(ATTACKS["pgd-20"], epsilon), Noisy(network, 0.01), images) for epsilon in (0.01, 0.2))
    assert weak.robust_any.sum() > N / 2
    assert strong.robust_any.sum() < N / 10
    assert weak.robust_last is not None
    assert not (weak.robust_any & ~weak.robust_last).any()


def test_the_verdict_is_that_of_the_mean_probabilities_and_the_single_draw_that_of_the_first() -> None:
    network, images = problem()
    model = Noisy(network, 0.15)
    classes, first = predict_expected(model, images.x, draws=5, key=(0, 500), batch_size=16)
    verdicts = run(case_of(short("fgsm"), 0.0, draws=5), model, images)
    np.testing.assert_array_equal(verdicts.prediction, classes.numpy())
    assert (classes != first).any()
    expected = (classes == images.y) & (first == images.y)
    assert verdicts.robust_single is not None
    np.testing.assert_array_equal(verdicts.robust_single, expected.numpy())


def test_numbers_depend_on_seed_and_chunk_and_not_on_the_generators_of_the_process() -> None:
    network, images = problem()
    model, case = Noisy(network, 0.1), case_of(short("pgd-20"), 0.05)
    first = run(case, model, images)
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()
    assert_same(run(case, model, images), first)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()) == before[1:]
    elsewhere = replace(images, index=images.index + 1)
    for other in (run(replace(case, seed=1), model, images), run(case, model, elsewhere)):
        assert (other.prediction != first.prediction).any()


def test_by_transfer_the_source_is_averaged_and_the_target_judged_by_expectation() -> None:
    network, images = problem()
    random_one, fixed = Noisy(network, 0.1), network
    case = replace(case_of(short("pgd-20"), 0.05), source=FIXED, eot=1)
    onto_random = evaluate_chunk([case], random_one, fixed, fixed, images, images.y, CPU)[0]
    assert onto_random.robust_single is not None
    assert onto_random.adversarial_class is not None
    broken = onto_random.correct & ~onto_random.robust_any
    np.testing.assert_array_equal(onto_random.adversarial_class >= 0, broken)
    assert (onto_random.adversarial_class[broken] != onto_random.label[broken]).all()
    assert broken.any()
    attacked = onto_random.correct
    np.testing.assert_array_equal(onto_random.forwards[attacked], 3 + 2 * 20)
    case = replace(case_of(short("pgd-20"), 0.05, draws=0), model=FIXED)
    onto_fixed = [evaluate_chunk([case], fixed, random_one, random_one, images, images.y, CPU)[0] for _ in range(2)]
    assert_same(*onto_fixed)
    assert onto_fixed[0].robust_single is None
    np.testing.assert_array_equal(onto_fixed[0].backwards[onto_fixed[0].robust_any], 3 * 2)


def test_kept_images_of_a_randomised_model_are_judged_again_to_the_same_verdicts(tmp_path: Path) -> None:
    network, images = problem()
    model, store = Noisy(network, 0.1), Store(tmp_path)
    case = replace(case_of(short("pgd-20"), 0.08), images=images.digest)
    kept = FoundPoints(images.x)
    verdicts = evaluate_chunk([case], model, model, model, images, images.y, CPU, observe=kept.observe)[0]
    key = case_key(case)
    store.write_case(key, {"identity": identity(case), "flags": []})
    store.write_images(key, (0, N), images, kept.x_adv)
    store.write_chunk(key, (0, N), verdicts, {"batch_size": CPU.batch_size})
    assert 5 < verdicts.robust_any.sum() < verdicts.correct.sum() - 5
    result = rejudge_case(store, key, model)
    assert (result.images, result.changed, result.are_all) == (N, 0, True)
    assert rejudge_case(store, key, network).changed > 0


def test_a_model_that_was_taken_for_deterministic_is_refused_where_it_is_not() -> None:
    check_identity(SPEC, ["randomized"])
    check_identity(FIXED, ["dropout"])
    with pytest.raises(InputError, match="model toy: expected the same logits at every pass") as caught:
        check_identity(FIXED, ["dropout", "randomized"])
    assert "\n" not in str(caught.value)


NOISY = """
import torch
from model_zoo.architectures.digits_cnn import DigitsCNN

class Noisy(DigitsCNN):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))

def noisy():
    return Noisy()
"""
WORDS = (
    "--dataset",
    "digits",
    "--transfer",
    "none",
    "--examples",
    "260",
    "--eot",
    "1",
    "--judge-draws",
    "2",
    "--workers",
    "1",
    "--quiet",
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """The words that name a randomised model of one's own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(NOISY)
    weights = Path(__file__).parents[3] / "model_zoo/checkpoints/digits/madry.safetensors"
    return "--model", f"{folder / 'mine.py'}:noisy", "--checkpoint", weights


def columns(folder: Path) -> dict[str, object]:
    """What is in each chunk, without its timing."""
    return {f"{p.parent.name}/{p.name[:13]}": pq.read_table(p).to_pydict() for p in folder.rglob("*.parquet")}


def test_an_interrupted_run_on_a_randomised_model_equals_one_that_was_not(
    command: Command, own: tuple[str | Path, ...], tmp_path: Path
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
    result = command(whole, *own, *WORDS, "--attacks", "fgsm,mi-fgsm")
    assert result.returncode == 0, result.stderr
    expected = columns(whole)
    assert len(expected) == 4
    assert command(torn, *own, *WORDS, "--attacks", "mi-fgsm").returncode == 0  # the other attack was not there yet
    for path in sorted(torn.rglob("*.parquet"))[:1]:
        path.unlink()
    result = command(torn, *own, *WORDS, "--attacks", "fgsm,mi-fgsm")
    assert result.returncode == 0, result.stderr
    assert columns(torn) == expected
    for name in ("scores.csv", "leaderboard.md"):
        assert (torn / "results/mine/digits" / name).read_bytes() == (whole / "results/mine/digits" / name).read_bytes()

    table = pd.read_csv(whole / "results/mine/digits/scores.csv")
    assert list(table["flags"]) == ["randomized"] * 2
    assert ((table["robust_acc_single_draw"] <= table["clean_acc"]) & (table["robust_acc"] > 20)).all()


@pytest.mark.parametrize(("option", "value"), [("--judge-draws", "0"), ("--judge-draws", "few"), ("--eot", "-1")])
def test_passes_that_are_no_number_are_one_line(command: Command, tmp_path: Path, option: str, value: str) -> None:
    result = command(tmp_path, option, value)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert option in result.stderr
