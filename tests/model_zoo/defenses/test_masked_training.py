"""The training of masked networks: what the mask learns, what the architecture is called, what a teacher says."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from attacks.draws import Draws
from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.suites.registry import SUITES
from benchmark.training.settings import training_settings
from model_zoo.architectures.registry import build
from model_zoo.defenses.context import TrainingContext
from model_zoo.defenses.registry import DEFENSES
from model_zoo.masked.registry import MASKS

X = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 10
CTX = TrainingContext(ThreatModel("Linf", 0.2), Draws.start(0, Y), steps=1, rel_step_size=1.0)


def test_every_mask_is_a_defense_that_trains_it_by_its_first_setting_or_by_another() -> None:
    for name, mask in MASKS.items():
        spec = DEFENSES[name]
        params, settings = training_settings(spec, SUITES["digits-masked"], "fast", [])
        assert settings.architecture == f"digits-cnn+{name}-{mask.settings[0]:g}"
        assert spec.model_name.format(**params) == f"{name}-{mask.settings[0]:g}"
    params, settings = training_settings(DEFENSES["thermometer"], SUITES["mnist-masked"], "fast", ["levels=15"])
    assert settings.architecture == "strided-cnn+thermometer-15"
    assert params == {"levels": 15}


def test_a_setting_that_a_mask_cannot_have_is_refused() -> None:
    with pytest.raises(InputError, match="expected a positive number of levels"):
        training_settings(DEFENSES["thermometer"], SUITES["digits-masked"], "fast", ["levels=0"])
    with pytest.raises(InputError, match="unknown setting 'levels'"):
        training_settings(DEFENSES["jpeg"], SUITES["digits-masked"], "fast", ["levels=3"])


@pytest.mark.parametrize("name", ["denoiser", "projection"])
def test_a_purifier_learns_beside_the_network_and_neither_moves_the_other(name: str) -> None:
    torch.manual_seed(0)
    model = build(f"digits-cnn+{name}-{MASKS[name].settings[0]:g}")
    loss = DEFENSES[name].batch_loss(model, X, Y, CTX)
    gradients = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)
    )
    assert all(gradient.any() for gradient in gradients.values())
    alone = torch.autograd.grad(F.cross_entropy(model(X), Y), list(model.network.parameters()))  # type: ignore[union-attr]
    of_network = [gradient for key, gradient in gradients.items() if key.startswith("network.")]
    assert all(torch.equal(a, b) for a, b in zip(of_network, alone, strict=True))


def test_a_distilled_network_is_taught_at_the_temperature() -> None:
    torch.manual_seed(0)
    student, teacher = (build("digits-cnn+distillation-20") for _ in range(2))
    teacher.eval().requires_grad_(False)
    soft = (teacher(X) / 20).softmax(1)
    entropy = -(soft * soft.log()).sum(1).mean()
    expected = F.cross_entropy(student.eval()(X) / 20, soft) - entropy
    loss = DEFENSES["distillation"].batch_loss(student.train(), X, Y, replace(CTX, source=teacher))
    torch.testing.assert_close(loss, expected)
    zero = DEFENSES["distillation"].batch_loss(teacher.train(), X, Y, replace(CTX, source=build_eval(teacher)))
    torch.testing.assert_close(zero, torch.tensor(0.0), atol=1e-6, rtol=0)


def build_eval(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in eval mode."""
    other = build("digits-cnn+distillation-20")
    other.load_state_dict(model.state_dict())
    return other.eval()
