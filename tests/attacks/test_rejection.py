"""Models that may reject an image: what the judge counts, what attacks climb, and what it does to a case's identity."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks import attack
from attacks.errors import InputError
from attacks.judge import BatchJudge, judge
from attacks.losses import LOSSES, logit_margin
from attacks.models.user_model import Quirks
from attacks.registry import ATTACKS
from attacks.rejection import as_label
from attacks.threat_model import ThreatModel
from benchmark import evaluate
from benchmark.suites.case import EvalCase, case_key
from model_zoo.card import card, read_card
from model_zoo.model_spec import ModelSpec

THREAT = ThreatModel("Linf", 0.15)
CLASSES = 2


class Detector(nn.Module):
    """Of an image of two pixels: class 1 where the first is above 0.6, rejected where the second is above 0.55.

    The way to the rejection is the steeper and the shorter one.
    """

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.flatten(1).unbind(1)
        return torch.stack([first * 0, 10 * (first - 0.6), 20 * (second - 0.55)], 1)


def images(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows).view(len(rows), 1, 1, 2)


def test_a_rejected_image_is_an_error_when_clean_and_withstands_when_attacked() -> None:
    x = images((0.5, 0.5), (0.5, 0.5), (0.5, 0.5))
    x_adv = images((0.5, 0.5), (0.64, 0.64), (0.64, 0.5))  # correct, rejected, class 1
    y = torch.zeros(3, dtype=torch.int64)
    assert judge(Detector(), x, y, x_adv, THREAT, batch_size=3, rejected=CLASSES).tolist() == [True, True, False]
    assert judge(Detector(), x, y, x_adv, THREAT, batch_size=3).tolist() == [True, False, False]
    shown = attack(Detector().eval(), images((0.5, 0.5), (0.5, 0.6)), y[:2], "fgsm", epsilon=0.0, rejects=True)
    assert shown.correct.tolist() == [True, False]
    assert shown.robust.tolist() == [True, False]


def test_a_randomised_detector_rejects_by_its_mean_probabilities() -> None:
    class Undecided(Detector):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits + torch.cat([torch.zeros(2), 3 * torch.rand(1)])

    y = torch.zeros(1, dtype=torch.int64)
    batch = BatchJudge(Undecided(), images((0.5, 0.4)), y, THREAT, draws=20, key=(0, 0), batch_size=1, rejected=CLASSES)
    assert batch.prediction.tolist() == [0]
    assert batch.wrong_classes(images((0.5, 0.55)), torch.tensor([0])).tolist() == [-1]
    assert batch.robust_single is not None
    assert batch.robust_single.tolist() == [True]


def test_an_attack_reads_a_rejection_as_the_label() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0, 5.0], [1.0, 2.0, 0.0, -5.0]])
    y = torch.tensor([2, 0])
    assert as_label(logits, y, 3).tolist() == [[1, 2, 5], [1, 2, 0]]
    assert as_label(logits, y, 4) is logits
    broken = as_label(torch.randn(500, 4), torch.zeros(500, dtype=torch.int64), 3)
    assert ((logit_margin(broken, torch.zeros(500, dtype=torch.int64)) < 0) == (broken.argmax(1) != 0)).all()


@pytest.mark.parametrize("loss", ["cross-entropy", "cross-entropy-x10", "margin", "dlr"])
def test_no_loss_climbs_the_rejection(loss: str) -> None:
    y = torch.tensor([0])
    for second in (0.4, 0.7):  # not rejected, rejected
        x = images((0.5, second)).requires_grad_()
        value = LOSSES[loss](as_label(Detector()(x), y, CLASSES), y)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert gradient.flatten()[0] > 0
        assert gradient.flatten()[1] <= 0
    x = images((0.5, 0.7)).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[loss](Detector()(x), y).sum(), x)
    assert gradient.flatten()[1] >= 0 if loss == "dlr" else gradient.flatten()[1] > 0


ASKING = ("pgd-20", "cw-linf", "mi-fgsm", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "spsa-500")


@pytest.mark.parametrize("name", [*ASKING, "random-points", "autoattack", "autoattack-fast", "foolbox-deepfool"])
def test_every_attack_finds_a_class_past_the_detector(name: str) -> None:
    x, y = images((0.5, 0.5), (0.4, 0.5)), torch.tensor([0, 0])
    shown = attack(Detector().eval(), x, y, name, epsilon=THREAT.epsilon, rejects=True)
    assert shown.robust.tolist() == [False, True]  # the second has no class 1 in its ball, only a rejection
    assert shown.adversarial_class.tolist() == [1, -1]
    assert Detector()(shown.x_adv[:1]).argmax(1).item() == 1


def test_without_the_word_the_last_logit_is_a_class_like_others() -> None:
    shown = attack(Detector().eval(), images((0.4, 0.5)), torch.tensor([0]), "pgd-20", epsilon=0.15)
    assert shown.adversarial_class.tolist() == [2]


def test_a_source_may_have_a_rejection_or_not() -> None:
    class Plain(Detector):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :2]

    x, y = images((0.5, 0.3)), torch.tensor([0])
    for source in (Plain(), Detector()):
        shown = attack(Detector().eval(), x, y, "pgd-20", epsilon=0.15, rejects=True, source=source.eval())
        assert shown.adversarial_class.tolist() == [1]
    with pytest.raises(InputError, match="a source of 2 classes"):
        attack(Plain().eval(), x, y, "pgd-20", epsilon=0.15, source=Detector().eval())


def test_the_rejection_is_no_label() -> None:
    with pytest.raises(InputError, match=r"labels in 0\.\.1"):
        attack(Detector().eval(), images((0.5, 0.5)), torch.tensor([2]), "fgsm", epsilon=0.1, rejects=True)


def test_evaluate_reads_a_detector_as_attack_does() -> None:
    x = images((0.5, 0.5), (0.4, 0.5), (0.5, 0.6), (0.95, 0.1), (0.9, 0.2))
    y = torch.tensor([0, 0, 0, 1, 1])
    report = evaluate(Detector().eval(), x, y, attacks=["pgd-20"], epsilon=0.15, rejects=True, quiet=True)
    assert report.clean_acc == 80
    assert report.robust_acc["pgd-20"] == 60
    assert report.verdicts["pgd-20"].prediction.tolist() == [0, 0, 2, 1, 1]


def spec() -> ModelSpec:
    return ModelSpec(
        "net",
        suites=("digits",),
        dataset="digits",
        architecture="digits-cnn",
        defense="",
        checkpoint="a.pt",
        sha256="0",
    )


def test_that_a_model_rejects_is_a_part_of_the_identity_of_its_cases_and_of_its_card(tmp_path: Path) -> None:
    def key(model: ModelSpec) -> str:
        return case_key(EvalCase("digits", "digits", "", 1, model, model, ATTACKS["fgsm"], THREAT, 0))

    rejecting = replace(spec(), rejects=True)
    assert key(rejecting) != key(spec())
    assert "rejects" not in spec().identity
    (tmp_path / "net.json").write_bytes(card(rejecting, {}))
    assert read_card(tmp_path / "net.json").rejects
    (tmp_path / "bad.json").write_bytes(card(rejecting, {}).replace(b'"rejects": true', b'"rejects": "no"'))
    with pytest.raises(InputError, match="rejects that is neither true nor false"):
        read_card(tmp_path / "bad.json")
    assert replace(rejecting, quirks=Quirks()).identity["rejects"]
