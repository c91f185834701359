"""The diagnosis from Python: the same checks as the command's, of models and surrogates of the caller's."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import masks
import pytest
import torch
from torch import Tensor, nn

from attacks.errors import InputError
from benchmark import diagnose_model, evaluate
from benchmark.data.datasets import load
from benchmark.data.split import balanced_subset
from benchmark.report.diagnosis import verdict
from benchmark.store.diagnosis import Diagnosis
from benchmark.store.store import Store
from model_zoo.load import load_model
from model_zoo.registry import model_spec

FEW = {"epsilon": 0.2, "attack": "pgd-20", "hidden": 8, "quiet": True}


@cache
def images() -> tuple[Tensor, Tensor]:
    split = balanced_subset(load("digits", "test", data_dir=Path()), 40, seed=0)
    return split.x, split.y


def shipped(name: str, suite: str = "digits") -> nn.Module:
    return load_model(model_spec(name, suite, Path()), Path(), classes=10)


def outcomes(found: Diagnosis) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in found.findings}


def test_an_honest_model_fails_no_check_and_a_mask_does() -> None:
    honest = diagnose_model(shipped("madry"), *images(), **FEW)  # type: ignore[arg-type]
    assert honest.failed == []
    assert honest.attack == "pgd-20, Linf 0.2"
    assert len(honest.findings) == 23
    assert outcomes(honest)["transfer"] == "cannot-tell"
    masked = diagnose_model(masks.sign_flipped().eval(), *images(), **FEW)  # type: ignore[arg-type]
    assert {"true-gradient", "black-box"} <= set(masked.failed)
    assert masked.flags == [f"not-shown({','.join(masked.failed)})"]


def unmasked(model: nn.Module) -> nn.Module:
    return model.get_submodule("net")


def test_an_adaptive_attack_is_what_is_diagnosed(tmp_path: Path) -> None:
    found = diagnose_model(
        masks.sign_flipped().eval(),
        *images(),
        **FEW,  # type: ignore[arg-type]
        adaptive=unmasked,
        store=tmp_path,
    )
    assert found.failed == []
    assert found.attack == "pgd-20 adaptive, Linf 0.2"
    assert outcomes(found)["true-gradient"] == "cannot-tell"  # a stand-in's gradient is none of the model's


def closing_over(model: nn.Module) -> Callable[[nn.Module], nn.Module]:
    return lambda _: model


def test_what_a_function_with_variables_of_another_one_found_is_not_taken_for_what_it_finds_now(tmp_path: Path) -> None:
    masked, about = masks.sign_flipped().eval(), {"epsilon": 0.2, "attacks": "pgd-20", "quiet": True, "store": tmp_path}
    weak = evaluate(masked, *images(), **about, adaptive=closing_over(masked))  # type: ignore[arg-type]
    strong = evaluate(masked, *images(), **about, adaptive=closing_over(unmasked(masked)))  # type: ignore[arg-type]
    assert weak.scores["robust_acc"].min() > strong.scores["robust_acc"].min() + 30


def test_one_image_shows_nothing_and_the_diagnosis_says_so() -> None:
    one = [tensor[:1] for tensor in images()]
    found = diagnose_model(shipped("madry"), *one, **FEW)  # type: ignore[arg-type]
    assert (found.failed, found.is_shown) == ([], False)
    assert "none that looks for what it missed passes" in verdict(found)


def test_what_checks_of_another_version_found_says_nothing(tmp_path: Path) -> None:
    found = diagnose_model(shipped("madry"), *images(), **FEW, store=tmp_path)  # type: ignore[arg-type]
    (suite,) = Store(tmp_path).diagnosed_suites()
    assert [one.model for one in Store(tmp_path).read_diagnoses(suite)] == [found.model]
    Store(tmp_path).write_diagnosis(suite, replace(found, checks=1))
    assert Store(tmp_path).read_diagnoses(suite) == []


def test_a_randomised_model_passes_where_both_sides_average() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = shipped("madry")

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.network(x + 0.02 * torch.randn_like(x))
            return logits

    few = [tensor[::3] for tensor in images()]
    found = diagnose_model(Noisy().eval(), *few, **FEW)  # type: ignore[arg-type]
    assert outcomes(found)["deterministic"] == "passes"
    (row,) = (finding for finding in found.findings if finding.check == "deterministic")
    assert "mean probabilities over 20 passes, queries average 20" in row.measured
    assert outcomes(found)["binarization"] == "cannot-tell"


def test_a_detector_is_diagnosed_by_its_classes() -> None:
    few = [tensor[::3] for tensor in images()]
    found = diagnose_model(shipped("lid-20", "digits-masked"), *few, **FEW, rejects=True)  # type: ignore[arg-type]
    assert outcomes(found)["zero-gradients"] == "passes"
    assert outcomes(found)["binarization"] == "passes"  # points are hidden in what its classes are read from


def test_an_attack_that_nothing_can_be_said_about_is_refused() -> None:
    with pytest.raises(InputError, match="asks of an attack by gradients"):
        diagnose_model(shipped("natural"), *images(), epsilon=0.2, attack="square")
    with pytest.raises(InputError, match=r"expected an attack at the threat model's epsilon 0\.1 or a smaller one"):
        diagnose_model(shipped("natural"), *images(), epsilon=0.1, attack_epsilon=0.2)
    with pytest.raises(InputError, match="hidden must be a whole number"):
        diagnose_model(shipped("natural"), *images(), epsilon=0.2, hidden=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attack": None}, "expected an attack's name or an AttackSpec, got NoneType"),
        ({"epsilon": 0}, "expected an epsilon above 0"),
        ({"adaptive": "x"}, "adaptive: expected a function from the model .* got str"),
        ({"adaptive": nn.Identity()}, "adaptive: expected a function from the model .* got Identity"),
        ({"adaptive": lambda model: model.nothing}, "adaptive: the function failed: AttributeError"),
    ],
    ids=["attack", "epsilon", "text", "module", "failing"],
)
def test_what_cannot_be_diagnosed_is_refused_in_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        diagnose_model(shipped("natural"), *images(), **{"epsilon": 0.2, "quiet": True, **wrong})  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
