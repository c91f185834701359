"""`attack(...)`: one call from Python."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks import AttackResult, attack
from attacks.errors import InputError
from attacks.oracle import Oracle
from attacks.registry import ATTACKS
from attacks.spec import AttackSpec, ThirdParty
from attacks.threat_model import ThreatModel

N = 12


@pytest.fixture
def problem() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A small network, and images that it classifies correctly but for the first."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 5)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = 0.2 + 0.6 * torch.rand(N, 1, 4, 4, generator=generator)
    y = network(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    return network, x, y


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd-20", "cw-linf", "mi-fgsm", "square-500", "autoattack-brief", "foolbox-deepfool"]
)
def test_what_is_not_robust_is_misclassified_at_the_point_returned(
    name: str, problem: tuple[nn.Sequential, Tensor, Tensor]
) -> None:
    network, x, y = problem
    result = attack(network, x, y, name, epsilon=0.08)
    classes = network(result.x_adv).argmax(1)
    there = classes == y
    assert torch.equal(result.adversarial_class, torch.where(result.correct & ~result.robust, classes, -1))
    assert torch.equal(result.correct, network(x).argmax(1) == y)
    assert not there[~result.robust].any()
    assert there[result.robust].all()
    assert 0 < result.robust.sum() < N - 1
    assert (result.x_adv - x).abs().max() <= 0.08 + 1e-6
    assert torch.equal(result.x_adv[0], x[0])
    assert result.robust_acc == pytest.approx(100 * result.robust.sum().item() / N)
    assert result.clean_acc == pytest.approx(100 * (N - 1) / N)


def test_the_model_is_left_as_it_was(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    network[1].weight.requires_grad_(False)
    before, wanted = copy.deepcopy(network.state_dict()), [p.requires_grad for p in network.parameters()]
    attack(network, x, y, "foolbox-deepfool", epsilon=0.08)
    assert [p.requires_grad for p in network.parameters()] == wanted
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_transfer_crafts_on_the_source_and_judges_on_the_model(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    other, generator = copy.deepcopy(network), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    white, crossed = (attack(network, x, y, "pgd-20", epsilon=0.08, source=source) for source in (None, other))
    assert not (network(crossed.x_adv).argmax(1) == y)[~crossed.robust].any()
    assert torch.equal(attack(network, x, y, "pgd-20", epsilon=0.08, source=network).x_adv, white.x_adv)
    assert crossed.robust.sum() >= white.robust.sum()
    assert not torch.equal(crossed.x_adv, white.x_adv)


def test_a_batch_that_memory_does_not_hold_is_halved(
    problem: tuple[nn.Sequential, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network, x, y = problem
    want = attack(network, x, y, "pgd-20", epsilon=0.08)
    ask = Oracle.loss_and_gradient

    def short_of_memory(self: Oracle, images: Tensor, *arguments: Any, **more: Any) -> tuple[Tensor, Tensor]:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ask(self, images, *arguments, **more)

    monkeypatch.setattr(Oracle, "loss_and_gradient", short_of_memory)
    got = attack(network, x, y, "pgd-20", epsilon=0.08, batch_size=10)
    assert torch.equal(got.x_adv, want.x_adv)
    assert torch.equal(got.forwards, want.forwards)
    assert "pgd-20: out of memory, going on with batches of 2" in capsys.readouterr().err


def test_the_seed_and_the_batch_size_decide_what_they_should(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    one = attack(network, x, y, "pgd-20", epsilon=0.08)
    again = attack(network, x, y, "pgd-20", epsilon=0.08, batch_size=5)
    other = attack(network, x, y, "pgd-20", epsilon=0.08, seed=1)
    torch.testing.assert_close(one.x_adv, again.x_adv)
    assert not torch.equal(one.x_adv, other.x_adv)


def test_batches_are_as_large_as_was_asked_for_but_a_third_party_s_is_a_chunk(
    problem: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    network, x, _ = problem
    x = x.repeat(50, 1, 1, 1)
    y, steps, proposed = network(x).argmax(1), list[int](), list[int]()
    attack(network, x, y, "fgsm", epsilon=0.08, batch_size=600, progress=steps.append)
    assert steps == [600]

    def propose(_classifier: nn.Module, x: Tensor, _y: Tensor, _threat: ThreatModel, *, seed: int) -> Tensor:
        assert seed == 100 + sum(proposed)
        proposed.append(len(x))
        return x

    third_party = AttackSpec("theirs", algorithm="theirs", method=ThirdParty(propose, "foolbox"))
    attack(network, x, y, third_party, epsilon=0.08, batch_size=600, seed=100)
    assert proposed == [250, 250, 100]


def test_a_third_party_attack_draws_anew_for_the_same_images_elsewhere(
    problem: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    network, x, y = problem
    points = [
        attack(network, x, y, "reference-apgd-ce", epsilon=0.08, index=torch.arange(start, start + N)).x_adv
        for start in (0, 0, 250)
    ]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])


def test_a_spec_of_ones_own_settings_and_the_papers_last_iterate(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    result = attack(network, x, y, ATTACKS["pgd-20"].with_settings(steps=3), epsilon=0.08)
    assert result.backwards.max() == 3
    assert result.robust_last is not None
    assert attack(network, x, y, "autoattack-brief", epsilon=0.08).robust_last is None


def test_a_model_that_answers_at_random_is_judged_by_its_mean(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = network(x + 0.01 * torch.randn_like(x))
            return logits

    result = attack(Noisy().eval(), x, y, "pgd-20", epsilon=0.08, judge_draws=3, eot=2)
    assert result.is_randomized
    assert result.backwards.max() == 40


class Detached(nn.Module):
    """Logits without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"x": torch.zeros(2, 4)}, r"expected float images \(N, C, H, W\)"),
    ({"x": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}, "expected float images"),
    ({"x": torch.full((2, 1, 4, 4), 255.0)}, "divide by 255"),
    ({"x": torch.full((2, 1, 4, 4), torch.nan)}, "expected pixels"),
    ({"y": torch.tensor([0, 9])}, "expected labels in 0..4, got 0..9"),
    ({"y": torch.tensor([0])}, "a class index for each of 2 images"),
    ({"y": torch.tensor([0.0, 1.0])}, "a class index for each"),
    ({"name": "pdg-20"}, "did you mean 'pgd-20'"),
    ({"epsilon": 8.0}, "epsilon"),
    ({"norm": "L2", "name": "cw-linf"}, "is defined for Linf"),
    ({"precision": "fp16"}, "precision must be"),
    ({"eot": 0}, "eot must be"),
    ({"eot": -3}, "eot must be"),
    ({"judge_draws": 0}, "judge_draws must be"),
    ({"batch_size": 0}, "batch_size must be"),
    ({"seed": -1}, "seed must be"),
    ({"seed": 1.5}, "seed must be"),
    ({"judge_draws": 20_000}, "from 1 to 10000, got 20000"),
    ({"index": torch.tensor([1, 0])}, "index to ascend"),
    ({"index": [0, 1]}, "index as a tensor of 2"),
    ({"epsilon": None}, "epsilon must be a number"),
    ({"epsilon": "8/255"}, "epsilon must be a number"),
    ({"x": np.zeros((2, 1, 4, 4))}, "images x as a tensor, got ndarray"),
    ({"y": [0, 1]}, "labels y as a tensor, got list"),
    ({"y": torch.tensor([True, False])}, "class index for each"),
    ({"x": torch.zeros(0, 1, 4, 4), "y": torch.zeros(0).long()}, "one at least"),
    ({"x": torch.full((2, 1, 4, 4), 1.0001)}, "clip them"),
    ({"x": torch.zeros(2, 3, 4, 4)}, "cannot take images of shape"),
    ({"model": "resnet18"}, "expected a torch.nn.Module, got str"),
    ({"model": lambda x: x}, "expected a torch.nn.Module, got function"),
    ({"model": nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).eval()}, "two classes at least"),
    ({"model": Detached().eval()}, "no gradient with respect to the image"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_means_nothing_is_refused_in_one_line(
    wrong: dict[str, Any], words: str, problem: tuple[nn.Sequential, Tensor, Tensor]
) -> None:
    network, x, y = problem
    given: dict[str, Any] = {"model": network, "x": x[:2], "y": y[:2], "name": "pgd-20", "epsilon": 0.08, **wrong}
    with pytest.raises(InputError, match=words) as raised:
        attack(**given)
    assert "\n" not in str(raised.value)


def test_a_model_in_train_mode_or_without_logits_is_refused(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem

    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": network(x)}

    with pytest.raises(InputError, match="got a dict of logits; say which part"):
        attack(Wrapped().eval(), x, y, epsilon=0.08)
    named = attack(Wrapped().eval(), x, y, "fgsm", epsilon=0.08, output="logits")
    assert torch.equal(named.robust, attack(network, x, y, "fgsm", epsilon=0.08).robust)
    with pytest.raises(InputError, match="eval mode"):
        attack(network.train(), x, y, epsilon=0.08)


def test_an_exported_program_has_no_train_mode_to_be_refused(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    program = torch.export.export(network, (x[:5],)).module()
    results = [attack(model, x, y, "pgd-20", epsilon=0.08) for model in (program, network)]
    assert torch.equal(results[0].robust, results[1].robust)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_frozen_program_of_torchscript_has_no_mode(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    program = torch.jit.freeze(torch.jit.trace(network, x))
    results = [attack(model, x, y, "pgd-20", epsilon=0.08) for model in (program, network)]
    assert torch.equal(results[0].robust, results[1].robust)


def test_where_the_logits_are_may_be_an_index_and_is_of_the_model_alone(
    problem: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    network, x, y = problem

    class Paired(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return network(x), x

    plain = attack(network, x, y, "pgd-20", epsilon=0.08)
    for source in (None, network):
        assert torch.equal(
            attack(Paired().eval(), x, y, "pgd-20", epsilon=0.08, output=0, source=source).robust, plain.robust
        )
    with pytest.raises(InputError, match="got its logits; leave it out"):
        attack(network, x, y, "pgd-20", epsilon=0.08, output=0)


def test_state_that_a_pass_leaves_behind_is_said(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem

    class Summing(nn.Module):
        total: Tensor | float = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.total = self.total + network(x).mean().detach()
            logits: Tensor = network(x) + self.total
            return logits

    assert attack(Summing().eval(), x, y, "fgsm", epsilon=0.08).is_stateful
    assert not attack(network, x, y, "fgsm", epsilon=0.08).is_stateful


def test_logits_that_are_no_row_an_image_are_refused_wherever_they_come(
    problem: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    network, x, y = problem

    class Short(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = network(x[:10])
            return logits

    with pytest.raises(InputError, match=r"expected logits of shape \(12, K\)"):
        attack(Short().eval(), x, y, "fgsm", epsilon=0.08)


def test_a_source_of_other_classes_or_without_weights_is_refused(
    problem: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    network, x, y = problem
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 7)).eval()
    with pytest.raises(InputError, match="expected a source of 5 classes"):
        attack(network, x, y, "fgsm", epsilon=0.08, source=other)
    with pytest.raises(InputError, match="which is lazy"):
        attack(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)).eval(), x, y, "fgsm", epsilon=0.08)


def test_the_source_is_left_as_it_was(problem: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    network, x, y = problem
    source = copy.deepcopy(network)
    attack(network, x, y, "fgsm", epsilon=0.08, source=source)
    assert all(parameter.requires_grad for parameter in source.parameters())


def test_the_package_exports_the_call_and_its_result() -> None:
    import attacks

    assert isinstance(attacks.AttackResult, type)
    assert attacks.AttackResult is AttackResult
    with pytest.raises(AttributeError, match="nothing"):
        _ = attacks.nothing


@pytest.mark.parametrize("name", ["pgd-20", "pgd-40-x10", "cw-linf", "apgd-dlr", "fab-t", "square-500"])
def test_log_probabilities_are_attacked_as_logits_are(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5)).eval()
    with_log_softmax = nn.Sequential(network, nn.LogSoftmax(1)).eval()
    x = torch.rand(30, 1, 4, 4)
    y = network(x).argmax(1)
    logits, log_probabilities = (attack(model, x, y, name, epsilon=0.1) for model in (network, with_log_softmax))
    assert torch.equal(logits.robust, log_probabilities.robust)
    assert 0 < logits.robust.sum() < len(x)
